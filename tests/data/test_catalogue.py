"""Data sets by name: readers as plug-ins, roots, what is genuine, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid_attack_bench import registry
from reid_attack_bench.data import catalogue
from reid_attack_bench.data.readers.export import MARKET
from reid_attack_bench.data.readers.market1501 import Market1501
from reid_attack_bench.data.source import DataSource
from reid_attack_bench.data.split import in_memory
from reid_attack_bench.errors import BenchError
from tests.data.conftest import people, picture, pictures

OWN = """
from dataclasses import dataclass
import numpy as np
from reid_attack_bench.contracts import DataSet, ImageList, Listing

@dataclass(frozen=True)
class Own(DataSet):
    first: int = 7
    def read(self, root):
        paths = tuple(str(path) for path in sorted(root.glob("*.png"), reverse=True))
        labels = np.arange(len(paths)) + self.first
        splits = {"query": ImageList(paths, labels, labels * 0), "gallery": ImageList(paths, labels, labels * 0 + 1)}
        return Listing({**splits, "train": splits["query"]})

class Nothing:
    def read(self, root): ...

class Wrong(DataSet):
    def read(self, root):
        return Listing({"query": ImageList(("a.png",), np.array([-1]), np.array([0]))})
"""


def made(name: str, data_root: Path | None = None, **options: Any) -> DataSource:
    return catalogue.source(name, options, size=(16, 8), seed=0, data_root=data_root)


def test_every_reader_is_a_plug_in() -> None:
    assert {"market1501", "dukemtmc-reid", "cuhk03", "msmt17", "csv", "folders"} <= set(catalogue.names())
    assert registry.find("data set", "market1501").factory is Market1501


def test_any_number_of_sets_by_any_name(tmp_path: Path) -> None:
    roots = [pictures(tmp_path / name, people((9, 10), cameras)) for name, cameras in (("a", (1, 2)), ("b", (10, 11)))]
    first, second = (made(root.name, layout="market1501", root=str(root)) for root in roots)
    assert first.identity["reader"] == second.identity["reader"] == "market1501"
    assert first.identity["options"] == {}
    assert first.identity["content"] != second.identity["content"]
    assert (first.title, first.genuine, first.notes) == ("a", True, ())
    splits = second.load(lambda *_: None, in_memory)
    np.testing.assert_array_equal(np.unique(splits["gallery"].cameras), [9, 10])
    assert splits["query"].images.shape == (2, 16, 8, 3)


def test_a_copy_elsewhere_is_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b/c"):
        pictures(tmp_path / name, people((1, 2), (1, 2)))
    there = made("mine", layout="market1501", root=str(tmp_path / "a"))
    monkeypatch.chdir(tmp_path)
    assert made("mine", layout="market1501", root="b/c").identity == there.identity
    assert made("mine", tmp_path / "b" / "..", layout="market1501", root="b/c").root == tmp_path / "b" / "c"
    assert made("a", tmp_path, layout="market1501").identity == there.identity, "below the data root by its name"


def test_a_reader_of_one_s_own(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    pictures(tmp_path / "images", ["x.png", "y.png", "z.png"])
    source = made("mine", layout=f"{file}:Own", root=str(tmp_path / "images"), first=3)
    assert source.identity["reader"] == "own.py:Own"
    assert source.identity["options"] == {"first": 3}
    splits = source.load(lambda *_: None, in_memory)
    np.testing.assert_array_equal(splits["query"].identities, [5, 4, 3])  # sorted by path
    np.testing.assert_array_equal(splits["train"].identities, [0, 1, 2])  # and numbered in that order
    for options, says in (
        ({"layout": f"{file}:Own", "frst": 1}, "no option 'frst'"),
        ({"layout": f"{file}:Nothing"}, "does not inherit reid_attack_bench.contracts.DataSet"),
        ({"layout": f"{file}:Wrong"}, "identities of query must be 1 whole numbers of at least 0"),
    ):
        with pytest.raises(BenchError, match=says):
            made("mine", root=str(tmp_path / "images"), **options)


@pytest.mark.parametrize("folder", ["market1501", "Market-1501-v15.09.15", "Market1501"])
def test_the_folder_is_found_below_the_data_root(tmp_path: Path, folder: str) -> None:
    pictures(tmp_path / folder, people((1, 2), (1, 2)))
    pictures(tmp_path / "Market-1501-attacked", people((3, 4), (1, 2)))
    assert made("market1501", tmp_path).root == tmp_path / folder


def test_a_missing_folder_is_named_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "Market-1501-attacked").mkdir()
    with pytest.raises(BenchError) as caught:
        made("market1501", tmp_path)
    said = str(caught.value)
    assert str(tmp_path / "market1501") in said
    assert "Market-1501-attacked/" in said
    assert "root" in said
    assert Market1501.url in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("market", {}, "did you mean 'market1501'.* needs a layout"),
        ("mine", {"layout": "market"}, "no data set is called 'market': did you mean 'market1501'"),
        ("mine", {"layout": "market1501", "root": "/nowhere"}, "its root /nowhere is missing"),
        ("mine", {"layout": "market1501", "root": 3}, "root must be a folder"),
        ("mine", {"layout": "market1501"}, "give --data-root DIR, where DIR contains mine"),
        ("plaza", {"layout": "market1501"}, "plaza is rendered and has no layout"),
        ("market1501", {"market1501_50k": True}, "no option 'market1501_50k'.*market1501_500k"),
        ("market1501", {"market1501_500k": "yes"}, "market1501_500k"),
        ("market1501", {}, "give --data-root DIR, where DIR contains market1501.*http"),
    ],
)
def test_wrong_options_are_explained(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(BenchError, match=says):
        made(name, **options)


def test_a_folder_that_only_goes_by_the_name_is_not_genuine(
    market: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    picture(market / MARKET / "query" / "stray.jpg")
    source = made("market1501", market)
    assert not source.genuine
    assert source.title == "Market-1501"
    genuine, skipped = source.notes
    assert "has 4 train, 1 query and 2 gallery images, not the published 12,936 train" in genuine
    assert skipped == (
        "market1501: not read: names without identity and camera (1: Market-1501-v15.09.15/query/stray.jpg); "
        "junk images, identity -1 (1: Market-1501-v15.09.15/bounding_box_test/-1_c3s2_068767_04.jpg)."
    )
    monkeypatch.setattr(Market1501, "images", {"train": 4, "query": 1, "gallery": 2})
    assert made("market1501", market).genuine
    # a layout does not make another folder Market-1501, and another name needs no published numbers
    other = pictures(tmp_path / "other", people((1, 2), (1, 2)))
    assert not made("market1501", layout="market1501", root=str(other)).genuine
    assert made("mine", layout="market1501", root=str(other)).genuine


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            [name.replace("_c2", "_c1") for name in people((9, 10, 11), (1, 2))],
            "no query has a match from another camera",
        ),
        (["query/0001_c1.jpg", "bounding_box_test/0002_c2.jpg"], "no query identity occurs in the gallery"),
        (["query/-1_c1.jpg", "bounding_box_test/0002_c2.jpg"], "it has no query images"),
        (["query/0001_c1.jpg", "bounding_box_test/readme.txt"], "it has no gallery images"),
    ],
)
def test_what_cannot_be_ranked_is_refused_while_planning(tmp_path: Path, files: list[str], says: str) -> None:
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    with pytest.raises(BenchError, match=says) as caught:
        made("mine", layout="market1501", root=str(tmp_path))
    assert str(caught.value).startswith(f"data set mine in {tmp_path}: ")


def test_rendered_people_need_a_camera_for_the_gallery() -> None:
    with pytest.raises(BenchError, match="queries_per_identity must be less than 6"):
        made("plaza", queries_per_identity=6)


def test_folders_of_this_machine_are_not_passed_on() -> None:
    options = {"mine": {"layout": "market1501", "root": "/home/me/reid"}, "plaza": {"train_identities": 8}}
    assert catalogue.without_roots(options) == {"mine": {"layout": "market1501"}, "plaza": {"train_identities": 8}}


def test_withdrawn_goes_with_the_reader(tmp_path: Path) -> None:
    root = str(pictures(tmp_path, people((1, 2), (1, 2))))
    assert "protocol" in made("mine", layout="dukemtmc-reid", root=root).withdrawn
    assert made("mine", layout="market1501", root=root).withdrawn == ""
    assert catalogue.withdrawn("dukemtmc-reid")
    assert not any(map(catalogue.withdrawn, ("market1501", "plaza", "unknown")))
