"""Lists and folders as systems of other people leave them: read, or one line that names the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reid_attack_bench.data.readers.content import content_of, read_listing
from reid_attack_bench.data.readers.csv_list import CsvList
from reid_attack_bench.data.readers.layout import lines_of
from reid_attack_bench.data.readers.market1501 import Market1501
from reid_attack_bench.data.readers.msmt17 import _listed
from reid_attack_bench.errors import BenchError
from tests.data.conftest import pictures
from tests.data.test_csv_list import HEADER, ROWS, write

LIST = "0000/0000_000_01_a.jpg 0\n0000/0000_001_02_b.jpg 0\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lists_in_the_encodings_of_windows_are_read(tmp_path, encoding, end):
    bom, name = ("\ufeff", "utf-16-le") if encoding.endswith("bom") else ("", encoding)
    file = tmp_path / "list_train.txt"
    file.write_bytes((bom + LIST.replace("\n", end)).encode(name))
    assert [(identity, camera) for _, identity, camera in _listed(None, "x", str(file))] == [(0, 0), (0, 1)]
    pictures(tmp_path, [row.split(",")[0] for row in ROWS])
    rows = tmp_path / "rows.csv"
    rows.write_bytes((bom + end.join([HEADER, *ROWS, ""])).encode(name))
    assert len(read_listing(CsvList(), rows).splits["query"].paths) == 2


@pytest.mark.parametrize("content", ["人/0000_000_01_a.jpg 0\n".encode("gbk"), b"\xff\xfea", b"\xff\n"])
def test_a_list_in_another_encoding_is_named(tmp_path, content):
    (tmp_path / "list_train.txt").write_bytes(content)
    with pytest.raises(BenchError, match=r"list_train\.txt cannot be read as UTF-8 text"):
        lines_of(tmp_path / "list_train.txt")


@pytest.mark.parametrize("numbers", [("01", "9" * 30), ("9" * 30, "0")])
def test_numbers_that_no_label_can_hold_are_named_with_their_line(tmp_path, numbers):
    camera, identity = numbers
    file = tmp_path / "list_train.txt"
    file.write_text(f"{LIST}0001/0001_000_{camera}_a.jpg {identity}\n", encoding="utf-8")
    with pytest.raises(BenchError, match=r"list_train\.txt, line 3: "):
        _listed(None, "x", str(file))


@pytest.mark.parametrize("row", ["x" * 200_000, '"a.jpg', "a\0.jpg,1,hall,query"])
def test_a_row_that_is_none_of_a_csv_file_is_named_with_its_line(tmp_path, row):
    file = write(tmp_path, ROWS)
    file.write_text("\n".join([HEADER, row, *ROWS]), encoding="utf-8")
    with pytest.raises(BenchError, match=r"list\.csv, line [0-9]+: ") as caught:
        read_listing(CsvList(), file)
    assert "\n" not in str(caught.value)


def test_names_that_are_no_text_are_read_and_part_of_the_content(tmp_path):
    odd = os.fsdecode(b"0001_c2s1_caf\xe9.jpg")
    pictures(tmp_path, ["query/0001_c1s1_a.jpg", f"bounding_box_test/{odd}"])
    content = content_of(Market1501(), tmp_path, "x", tmp_path / "known")
    assert content.counts["gallery"]["images"] == 1
    (tmp_path / "bounding_box_test" / odd).rename(tmp_path / "bounding_box_test" / "0001_c2s1_cafe.jpg")
    assert content_of(Market1501(), tmp_path, "x", None).digest != content.digest


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_empty(tmp_path, monkeypatch):
    pictures(tmp_path, ["query/0001_c1s1_a.jpg", "bounding_box_test/0001_c2s1_a.jpg"])
    closed = tmp_path / "bounding_box_test" / "more"
    closed.mkdir()
    scan = os.scandir

    def refused(path):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(BenchError, match=r"more cannot be read \(Permission denied\)"):
        read_listing(Market1501(), tmp_path)
