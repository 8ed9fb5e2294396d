"""A data set as a list of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_attack_bench.contracts import Listing
from reid_attack_bench.data.readers.content import content_of, read_listing
from reid_attack_bench.data.readers.csv_list import CsvList
from reid_attack_bench.data.readers.labels import numbers_of
from reid_attack_bench.errors import BenchError
from tests.data.conftest import described, pictures

HEADER = "path,identity,camera,split"
ROWS = [
    "a.jpg,0009,hall,query",
    "b.png,9,door,gallery",
    "c.png,anna,door,gallery",
    "d.png,10,door,gallery",
    "sub/e.png,anna,hall,probe",
    "t.jpg,77,2,train",
    "u.jpg,6,10,train",
]


def write(folder: Path, rows: list[str], header: str = HEADER, *, encoding: str = "utf-8", end: str = "\n") -> Path:
    pictures(folder, [name for row in rows if (name := row.split(",")[0]).count(".") and "missing" not in name])
    file = folder / "list.csv"
    file.write_bytes(end.join([header, *rows, ""]).encode(encoding))
    return file


def read(file: Path, **options: bool) -> Listing:
    return read_listing(CsvList(**options), file)


def test_a_list_reads(tmp_path: Path) -> None:
    splits = read(write(tmp_path, ROWS)).splits
    # identities 6, 9, 10, 77, anna are 0 … 4; cameras 2, 10, door, hall are 0 … 3
    assert described(splits["query"]) == [("a.jpg", 1, 3), ("e.png", 4, 3)]
    assert described(splits["gallery"]) == [("b.png", 1, 2), ("c.png", 4, 2), ("d.png", 2, 2)]
    assert described(splits["train"]) == [("t.jpg", 0, 0), ("u.jpg", 1, 1)]
    assert splits["query"].clothes is None
    assert splits["query"].cameras_known
    assert all(Path(path).is_absolute() for path in splits["query"].paths)


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"encoding": "utf-8-sig"}, {}),
        ({"end": "\r\n"}, {}),
        ({"end": "\n\n"}, {}),
        ({"header": " Path , Identity,CAMERA,split "}, {}),
    ],
)
def test_lists_are_read_as_spreadsheets_write_them(tmp_path: Path, change: dict, kept: dict) -> None:
    expected = {part: described(images) for part, images in read(write(tmp_path, ROWS)).splits.items()}
    found = read(write(tmp_path, ROWS, **change)).splits
    assert {part: described(images) for part, images in found.items()} == expected
    semicolons = write(tmp_path, ROWS)
    semicolons.write_text(semicolons.read_text().replace(",", ";"))
    assert {part: described(images) for part, images in read(semicolons).splits.items()} == expected


def test_without_cameras_no_match_is_junk(tmp_path: Path) -> None:
    rows = ["a.jpg,1,query", "b.jpg,1,gallery", "c.jpg,2,gallery"]
    lists = [write(tmp_path, rows, "path,identity,split"), None]
    for file in lists:
        if file is None:
            file = write(tmp_path, [f"{row}," for row in rows], "path,identity,split,camera")
        content = content_of(CsvList(), file, "v1", None)
        assert (content.matched, content.mistake) == (1, "")
        assert not any(images.cameras_known for images in read(file).splits.values())


def test_clothes_and_junk(tmp_path: Path) -> None:
    rows = ["a.jpg,1,1,query,red", "b.jpg,1,2,gallery,red", "c.jpg,1,2,gallery,blue", "d.jpg,-1,2,gallery,blue"]
    file = write(tmp_path, rows, f"{HEADER},clothes")
    listing = read(file)
    np.testing.assert_array_equal(listing.splits["gallery"].clothes, [1, 0])
    assert listing.skipped == {"junk images, identity -1": ["d.jpg"]}
    assert content_of(CsvList(clothes_rule=True), file, "v1", None).mistake == ""
    file = write(tmp_path, rows[:2], f"{HEADER},clothes")
    assert content_of(CsvList(), file, "v1", None).mistake == ""
    assert "in other clothes" in content_of(CsvList(clothes_rule=True), file, "v1", None).mistake
    assert "no clothes labels" in content_of(CsvList(clothes_rule=True), write(tmp_path, ROWS), "v1", None).mistake


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([*ROWS, "missing.jpg,1,1,query"], r"line 9: .*missing\.jpg is missing"),
        ([*ROWS, "f.jpg,1,1,quarry"], "line 9: split must be train, query or gallery, not 'quarry'"),
        ([*ROWS, "f.jpg,1,1"], "line 9: 3 cells, but the header has 4"),
        ([*ROWS, "f.jpg,,1,query"], "line 9: it has no identity"),
        ([*ROWS, "f.jpg,1,,query"], "line 9: it has no camera, but others have"),
        ([*ROWS, "a.jpg,9,hall,query"], r"line 9: a\.jpg is in line 2 already"),
        ([*ROWS, "./a.jpg,8,hall,gallery"], r"line 9: a\.jpg has another identity in line 2"),
    ],
)
def test_mistakes_name_their_line(tmp_path: Path, rows: list[str], says: str) -> None:
    file = write(tmp_path, rows)
    with pytest.raises(BenchError, match=says) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}, ")


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("path,identity,camera", "no column split"),
        ("path,identty,camera,split", "did you mean 'identity'"),
        ("path,path,identity,camera,split", "a column twice"),
        ("", "no column path and no column identity"),
    ],
)
def test_a_wrong_header_is_explained(tmp_path: Path, header: str, says: str) -> None:
    with pytest.raises(BenchError, match=says):
        read(write(tmp_path, [], header))


def test_a_query_must_not_be_its_own_match(tmp_path: Path) -> None:
    both = ["a.jpg,1,query", "a.jpg,1,gallery"]
    with pytest.raises(BenchError, match=r"line 3: .* its own match"):
        read(write(tmp_path, both, "path,identity,split"))
    # with cameras it is junk, as where all images are queries and gallery
    read(write(tmp_path, ["a.jpg,1,2,query", "a.jpg,1,2,gallery"]))


def test_a_folder_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="is not a CSV file"):
        read(tmp_path)


@given(st.lists(st.text(max_size=3) | st.integers(0, 200).map(str)))
def test_labels_are_numbered_without_gaps(texts: list[str]) -> None:
    numbers = numbers_of(texts)
    assert sorted(set(numbers.values())) == list(range(len(set(numbers.values()))))
    whole = sorted((int(text), numbers[text]) for text in texts if text.isascii() and text.isdecimal())
    assert [number for _, number in whole] == sorted(number for _, number in whole)
    assert all((a == b) == (x == y) for a, x in whole for b, y in whole)
