"""The layout of Market-1501: our reader, and that of torchreid."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_attack_bench.contracts import ImageList
from reid_attack_bench.data.readers.content import read_listing
from reid_attack_bench.data.readers.layout import HIDDEN, NO_IMAGE, OUTSIDE, UNNAMED
from reid_attack_bench.data.readers.market1501 import JUNK, DukeMTMCReID, Market1501, market_layout
from reid_attack_bench.data.readers.torchreid import read_with_torchreid
from reid_attack_bench.errors import BenchError
from tests.data.conftest import described, people, picture, pictures

INNER = "Market-1501-v15.09.15"


def read(root: Path, **options: bool) -> dict[str, ImageList]:
    return dict(read_listing(Market1501(**options), root).splits)


def check_market(lists: dict[str, ImageList]) -> None:
    assert described(lists["train"]) == [
        ("0002_c1s1_000451_03.jpg", 0, 0),
        ("0002_c4s1_000001_00.jpg", 0, 3),
        ("0007_c3s3_077419_03.jpg", 1, 2),
        ("0300_c6s1_000001_00.jpg", 2, 5),
    ]
    assert described(lists["query"]) == [("0001_c1s1_001051_00.jpg", 1, 0)]
    # junk (-1) is gone, the distractor (0) stays
    assert described(lists["gallery"]) == [("0000_c5s1_000151_01.jpg", 0, 4), ("0001_c2s1_001976_01.jpg", 1, 1)]
    assert lists["train"].identities.dtype == lists["train"].cameras.dtype == np.int64


def test_market1501(market: Path) -> None:
    lists = read(market / "market1501")
    check_market(lists)
    assert all(Path(path).is_absolute() and Path(path).is_file() for path in lists["train"].paths)


@pytest.mark.parametrize("place", [".", "deeper", "deeper/still"])
def test_the_folder_is_found_where_archives_put_it(market: Path, place: str) -> None:
    moved = market / "moved"
    shutil.move(market / "market1501" / INNER, moved / place)
    check_market(read(moved))


def test_what_is_there_is_named_where_the_folder_is_not(market: Path) -> None:
    shutil.rmtree(market / "market1501" / INNER / "query")
    with pytest.raises(BenchError, match=rf"has no query and bounding_box_test, only {INNER}/$"):
        read(market / "market1501")
    with pytest.raises(BenchError, match=r"elsewhere is missing"):
        read(market / "elsewhere")
    for copy in ("a", "b"):
        pictures(market / "two" / copy, ["query/1_c1.jpg", "bounding_box_test/1_c2.jpg"])
    with pytest.raises(BenchError, match=r"in several folders \(a/, b/\)"):
        read(market / "two")


def test_ours_and_torchreid_s_agree(market: Path) -> None:
    """The same files, labels, cameras and order, with distractors too."""
    base = market / "market1501"
    pictures(base / INNER, [*people(range(1, 10), range(1, 7)), "images/0000_c1s1_000001_00.jpg", "readme.jpg"])
    (base / INNER / "query" / "Thumbs.db").touch()
    for options in ({}, {"market1501_500k": True}):
        ours, theirs = read(base, **options), read_with_torchreid("market1501", "Market1501", base, options)
        for part in ("train", "query", "gallery"):
            assert ours[part].paths == theirs[part].paths
            np.testing.assert_array_equal(ours[part].cameras, theirs[part].cameras)
            if part != "train":  # there only the grouping counts: torchreid numbers them as its sets come
                np.testing.assert_array_equal(ours[part].identities, theirs[part].identities)
        pairs = set(zip(ours["train"].identities.tolist(), theirs["train"].identities.tolist(), strict=True))
        assert len(pairs) == len(set(ours["train"].identities.tolist())) == len({theirs for _, theirs in pairs})
    assert len(ours["gallery"].paths) == 1 + len(read(base)["gallery"].paths)


def test_duke_agrees_with_torchreid_too(tmp_path: Path) -> None:
    base = tmp_path / "dukemtmc-reid"
    pictures(base / "DukeMTMC-reID", ["bounding_box_train/0009_c8_f0051015.jpg", "query/0005_c1_f0046985.jpg",
             "bounding_box_train/0001_c2_f0046182.jpg", "bounding_box_test/0005_c5_f0051781.jpg"])  # fmt: skip
    ours = read_listing(DukeMTMCReID(), base).splits
    assert described(ours["train"]) == [("0001_c2_f0046182.jpg", 0, 1), ("0009_c8_f0051015.jpg", 1, 7)]
    theirs = read_with_torchreid("dukemtmcreid", "DukeMTMCreID", base)
    for part in ("query", "gallery"):
        assert described(ours[part]) == described(theirs[part])


@pytest.mark.parametrize(
    ("identities", "cameras", "suffix"),
    [
        ((9, 10), (1, 2, 10, 11, 12), "jpg"),  # torchreid reads cameras 10, 11 and 12 as 1
        ((2000, 123456), (1, 2, 3), "jpg"),  # and refuses identities above 1501
        ((1, 2), (1, 2), "JPG"),
        ((1, 2), (1, 2), "png"),
        ((1, 2), (1, 2), "TiFF"),
        ((1, 2), (1, 2), "webp"),
        ((1, 2), (1, 2), "bmp"),
        ((1, 2), (1, 2), "jpeg"),
    ],
)
def test_any_number_and_kind_of_image(tmp_path: Path, identities, cameras, suffix) -> None:
    names = people(identities, cameras, suffix)
    lists = read(pictures(tmp_path, names))
    assert sorted(set(lists["query"].identities)) == sorted(identities)
    assert sorted(set(lists["gallery"].cameras)) == [camera - 1 for camera in cameras]
    assert sum(len(images.paths) for images in lists.values()) == len(names)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**12), st.integers(1, 10**6), st.sampled_from(["", "s1_000001_00", "_f0051781", "_17"]))
def test_every_identity_and_camera_reads_back(identity: int, camera: int, rest: str) -> None:
    layout = market_layout()
    match = re.match(layout.pattern, f"{identity:04d}_c{camera}{rest}.jpg")
    assert match is not None
    assert layout.labels(match)[:2] == (identity, camera - 1)


def test_what_is_not_read_is_counted_and_named(market: Path) -> None:
    base = market / "market1501" / INNER
    pictures(base, ["query/IMG_2041.jpg", "query/.0001_c1s1_1.jpg", "query/0001_c1s1_000001_00.jpg",
                    "__MACOSX/a.jpg", "gt_bbox/0001_c1s1_000001_00.jpg", "sheet.png"])  # fmt: skip
    (base / "bounding_box_test" / "Thumbs.db").touch()
    (base / "readme.txt").touch()
    listing = read_listing(Market1501(), market / "market1501")
    assert {reason: sorted(names) for reason, names in listing.skipped.items()} == {
        UNNAMED: [f"{INNER}/query/IMG_2041.jpg"],
        HIDDEN: [f"{INNER}/query/.0001_c1s1_1.jpg"],
        NO_IMAGE: [f"{INNER}/bounding_box_test/Thumbs.db"],
        JUNK[-1]: [f"{INNER}/bounding_box_test/-1_c3s2_068767_04.jpg"],
        OUTSIDE: [f"{INNER}/gt_bbox/", f"{INNER}/sheet.png"],
    }
    assert len(listing.splits["query"].paths) == 2


def test_sub_folders_are_read_and_a_missing_training_split_is_none(tmp_path: Path) -> None:
    pictures(tmp_path, ["query/1/0001_c1.jpg", "bounding_box_test/1/night/0001_c2.jpg"])
    lists = read(tmp_path)
    assert set(lists) == {"query", "gallery"}
    assert described(lists["gallery"]) == [("0001_c2.jpg", 1, 1)]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("0001_c0s1_000001_00.jpg", r"0001_c0s1_000001_00\.jpg: it has camera 0"),
        ("-2_c1s1_000001_00.jpg", r"-2_c1s1_000001_00\.jpg: it has identity -2"),
        (f"{10**30}_c1s1_1.jpg", "a number that is too large"),
        ("0001_c1s1_001051_00.JPG", r"have one name: remove or rename one"),
        ("copy/0001_c1s1_001051_00.jpg", r"have one name"),
    ],
)
def test_impossible_names_are_errors_with_the_file(market: Path, name: str, says: str) -> None:
    path = picture(market / "market1501" / INNER / "query" / name)
    with pytest.raises(BenchError, match=says) as caught:
        read(market / "market1501")
    assert str(path) in str(caught.value)


def test_a_folder_where_most_names_do_not_fit_is_an_error(market: Path) -> None:
    pictures(market / "market1501" / INNER / "query", ["a.jpg", "b.jpg"])
    with pytest.raises(BenchError, match=r"2 of the 3 images in .*query have no identity and camera .*a\.jpg"):
        read(market / "market1501")
