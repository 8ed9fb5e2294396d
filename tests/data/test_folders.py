"""A folder per identity."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reid_attack_bench.data.readers.content import content_of, read_listing
from reid_attack_bench.data.readers.folders import Folders
from reid_attack_bench.data.readers.layout import HIDDEN, NO_IMAGE
from reid_attack_bench.errors import BenchError
from tests.data.conftest import described, pictures

FILES = ["train/x/1.jpg", "train/y/2.PNG", "query/10/a_c3.jpg", "gallery/9/b_c1.jpg", "gallery/10/deep/c_c12.jpg"]


def test_identities_are_folders(tmp_path: Path) -> None:
    root = pictures(tmp_path, [*FILES, "gallery/loose.jpg", "gallery/9/._b.jpg"])
    (root / "gallery" / "9" / "notes.txt").touch()
    listing = read_listing(Folders(), root)
    # 9, 10, x, y are 0 … 3; without cameras no match is junk
    assert described(listing.splits["query"]) == [("a_c3.jpg", 1, 0)]
    assert described(listing.splits["gallery"]) == [("c_c12.jpg", 1, 1), ("b_c1.jpg", 0, 1)]
    assert described(listing.splits["train"]) == [("1.jpg", 0, 0), ("2.PNG", 1, 0)]
    assert listing.skipped == {
        HIDDEN: ["gallery/9/._b.jpg"],
        NO_IMAGE: ["gallery/9/notes.txt"],
        "images that are in no folder of an identity": ["gallery/loose.jpg"],
    }
    assert not any(images.cameras_known for images in listing.splits.values())
    assert content_of(Folders(), root, "v1", None).mistake == ""


def test_cameras_are_found_in_names_or_folders(tmp_path: Path) -> None:
    root = pictures(tmp_path / "names", FILES[2:])
    splits = read_listing(Folders(camera="_c([0-9]+)"), root).splits
    assert {part: images.cameras.tolist() for part, images in splits.items()} == {"query": [1], "gallery": [2, 0]}
    root = pictures(
        tmp_path / "folders", ["probe/anna/hall/1.jpg", "gallery/anna/door/1.jpg", "gallery/anna/hall/2.jpg"]
    )
    splits = read_listing(Folders(camera="folder"), root).splits
    assert all(images.cameras_known for images in splits.values())
    assert {part: images.cameras.tolist() for part, images in splits.items()} == {"query": [1], "gallery": [0, 1]}


@pytest.mark.parametrize(
    ("options", "files", "says"),
    [
        ({"camera": "_c([0-9]+)"}, ["gallery/9/x.jpg"], r"gallery/9/x\.jpg: its name has no camera"),
        ({"camera": "folder"}, [], r"query/10/a_c3\.jpg is in no folder of a camera"),
        ({"camera": "_c[0-9]+"}, [], "needs one group"),
        ({"camera": "("}, [], "is no regular expression"),
        ({}, ["gallery/Anna/x.jpg", "query/anna/y.jpg"], "Anna and anna, which differ by case alone"),
    ],
)
def test_what_cannot_be_is_an_error_with_the_file(tmp_path: Path, options: dict, files: list[str], says: str) -> None:
    root = pictures(tmp_path, [*FILES[2:], *files])
    with pytest.raises(BenchError, match=says):
        Folders(**options).read(root)


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=re.escape("has no query and gallery, only train/")):
        Folders().read(pictures(tmp_path, FILES[:1]))
