"""A data set as a list of its images in a CSV file."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid_attack_bench.contracts import DataSet, Listing, RankingProtocol
from reid_attack_bench.data.readers.labels import numbers_of
from reid_attack_bench.data.readers.layout import Labelled, image_list, lines_of
from reid_attack_bench.data.readers.market1501 import JUNK
from reid_attack_bench.errors import BenchError, nearest

REQUIRED, OPTIONAL = ("path", "identity", "split"), ("camera", "clothes")
SPLITS: Mapping[str, str] = {"train": "train", "query": "query", "probe": "query", "gallery": "gallery"}


@dataclass(frozen=True)
class CsvList(DataSet):
    """A list of images: columns path, identity, camera, split and, if wanted, clothes.

    Paths are relative to the file. The split is train, query or gallery. Identities, cameras and clothes are text or
    numbers; they are numbered in sorted order, "7" and "0007" are the same. Identity −1 is junk. Without a camera
    (no column, or all empty) no match is junk: queries count as taken by one camera, gallery images by another.

    Attributes:
        clothes_rule: whether images of the same identity in the same clothes are junk too, as in cloth-changing
            evaluation; it needs the column clothes.
    """

    version = 1
    title = "list of images in a CSV file"

    clothes_rule: bool = False

    @property
    def protocol(self) -> RankingProtocol:
        return "clothes" if self.clothes_rule else "market1501"

    def read(self, root: Path) -> Listing:
        if not root.is_file():
            raise BenchError(f"{root} is not a CSV file: name the list itself as root")
        rows = list(_rows(root))
        _check_cameras(root, rows)
        _check_twice(root, rows)
        junk = [row["path"] for row in rows if row["identity"] == "-1"]
        kept = [row for row in rows if row["identity"] != "-1"]
        number = {column: numbers_of(row.get(column, "") for row in kept) for column in ("identity", *OPTIONAL)}
        found: dict[str, list[Labelled]] = {}
        for row in kept:
            camera = number["camera"][row["camera"]] if row.get("camera") else int(row["split"] == "gallery")
            clothes = number["clothes"][row["clothes"]] if row.get("clothes") else None
            path = os.path.join(root.parent, row["path"])
            found.setdefault(row["split"], []).append(
                Labelled(path, number["identity"][row["identity"]], camera, clothes)
            )
        known = any(row.get("camera") for row in kept)
        splits = {part: image_list(found.get(part, ()), known) for part in ("train", "query", "gallery")}
        return Listing(splits, {JUNK[-1]: junk} if junk else {})


def _rows(file: Path) -> Iterator[dict[str, str]]:
    """Rows with their line; every cell is stripped, and the split is one of train, query and gallery."""
    lines = lines_of(file)
    header = lines[0] if lines else ""
    delimiter = next((each for each in ",;\t" if each in header), ",")
    reader = csv.reader(lines, delimiter=delimiter)
    cells_of = _cells(file, reader)
    columns = [name.strip().lower() for name in next(cells_of, [])]
    for column in columns:
        if column not in (*REQUIRED, *OPTIONAL):
            raise BenchError(f"{file}, line 1: unknown column '{column}': {nearest(column, (*REQUIRED, *OPTIONAL))}")
    missing = [column for column in REQUIRED if column not in columns]
    if missing or len(set(columns)) < len(columns):
        what = f"no column {' and no column '.join(missing)}" if missing else "a column twice"
        raise BenchError(f"{file}, line 1: the header has {what}: it must be path,identity,camera,split[,clothes]")
    for cells in cells_of:
        where = f"{file}, line {reader.line_num}"
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns):
            raise BenchError(f"{where}: {len(cells)} cells, but the header has {len(columns)}")
        row = {column: cell.strip() for column, cell in zip(columns, cells, strict=True)}
        for column in REQUIRED:
            if not row[column]:
                raise BenchError(f"{where}: it has no {column}")
        if row["split"].lower() not in SPLITS:
            raise BenchError(f"{where}: split must be train, query or gallery, not '{row['split']}'")
        if not (file.parent / row["path"]).is_file():
            raise BenchError(f"{where}: {file.parent / row['path']} is missing")
        yield {**row, "split": SPLITS[row["split"].lower()], "line": str(reader.line_num)}


def _cells(file: Path, reader: Any) -> Iterator[list[str]]:
    """The rows of a CSV reader; what it cannot read is a BenchError with its line."""
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise BenchError(f"{file}, line {reader.line_num + 1}: it is no row of a CSV file ({error})") from error


def _check_cameras(file: Path, rows: list[dict[str, str]]) -> None:
    """Raise BenchError if only some rows have a camera, or clothes."""
    for column in OPTIONAL:
        empty = [row["line"] for row in rows if not row.get(column)]
        if empty and len(empty) < len(rows):
            raise BenchError(f"{file}, line {empty[0]}: it has no {column}, but others have: fill in all, or none")


def _check_twice(file: Path, rows: list[dict[str, str]]) -> None:
    """Raise BenchError for an image that is listed twice in a split, or with two identities."""
    first: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        path = os.path.normpath(row["path"])
        if (path, row["split"]) in first:
            line = first[path, row["split"]]["line"]
            raise BenchError(f"{file}, line {row['line']}: {path} is in line {line} already")
        other = first.setdefault((path, ""), row)
        if other["identity"] != row["identity"]:
            raise BenchError(f"{file}, line {row['line']}: {path} has another identity in line {other['line']}")
        if other is not row and not row.get("camera") and "train" not in (row["split"], other["split"]):
            raise BenchError(
                f"{file}, line {row['line']}: {path} is in line {other['line']} already, so without cameras a query is "
                "its own match"
            )
        first[path, row["split"]] = row
