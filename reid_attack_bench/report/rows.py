"""Rows of the result tables and their settings."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import replace_file
from reid_attack_bench.metrics.catalogue import measure_of
from reid_attack_bench.report.results import PerQuery, Results

Row = dict[str, Any]
"""One row of a table, by column name."""


@dataclass(frozen=True, order=True)
class Setting:
    """One attack under one threat model; pixels 0 stands for all pixels."""

    attack: str
    epsilon: int
    pixels: int = 0
    perturbs: str = "query"

    @property
    def budget(self) -> str:
        """What tells this setting from others of its attack, for names: "e8", "e8_k500", "e8_gallery"."""
        pixels = f"_k{self.pixels}" if self.pixels else ""
        return f"e{self.epsilon}{pixels}" + ("" if self.perturbs == "query" else f"_{self.perturbs}")

    @property
    def variant(self) -> str:
        """The attack in words without its epsilon: "pgd", "pgd, 500 pixels", "pgd, gallery attacked"."""
        pixels = f", {self.pixels} pixels" if self.pixels else ""
        return f"{self.attack}{pixels}" + ("" if self.perturbs == "query" else f", {self.perturbs} attacked")


def is_missing(value: Any) -> bool:
    """Whether a table's value stands for "no figure"."""
    return value is None or value is pd.NA or value == "" or (isinstance(value, float) and math.isnan(value))


def is_true(value: Any) -> bool:
    """A flag of a table, also where the table was read back from CSV."""
    return not is_missing(value) and str(value).lower() in ("true", "1", "1.0")


def number(value: Any) -> float:
    """A figure as float, NaN where there is none."""
    return math.nan if is_missing(value) else float(value)


def figure(row: Row, name: str, digits: int) -> str:
    """A figure in words for a report, empty where there is none."""
    value = number(row[name])
    return "" if value != value else f"{value:.{digits}f}"


def with_interval(row: Row, name: str) -> str:
    """A percentage with its interval: "42.0 [38.1, 45.9]"; empty where there is none."""
    value, low, high = (number(row.get(f"{name}{end}")) for end in ("", "_low", "_high"))
    if value != value:
        return ""
    return f"{value:.1f}" + (f" [{low:.1f}, {high:.1f}]" if low == low and high == high else "")


def setting_of(cell: Row) -> Setting:
    """The attack and threat model of a cell."""
    pixels = 0 if is_missing(cell["pixels"]) else int(cell["pixels"])
    perturbs = "query" if is_missing(cell["perturbs"]) else str(cell["perturbs"])
    return Setting(str(cell["attack"]), int(cell["epsilon"]), pixels, perturbs)


def settings(results: Results) -> list[Setting]:
    """Every attack setting of the run, sorted; also those of which no cell succeeded."""
    named = results.cells[["attack", "epsilon", "pixels", "perturbs"]].drop_duplicates()
    return sorted({setting_of(cell) for cell in rows(named)})


def rows(frame: pd.DataFrame) -> list[Row]:
    """The rows of a table as dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def kind_of(cell: Row) -> str:
    """ "whitebox" or "query" where source and target are one model, else "transfer"."""
    if cell["source"] != cell["target"]:
        return "transfer"
    return "query" if cell["access"] == "query" else "whitebox"


def strongest(cells: Iterable[Row]) -> Row | None:
    """The successful cell with the lowest mAP (ties by source), or None."""
    found = [cell for cell in cells if cell["status"] == "ok"]
    return min(found, key=lambda cell: (number(cell["mAP"]), str(cell["source"])), default=None)


def over_seeds(cells: Iterable[Row]) -> list[Row]:
    """One row for each (setting, source, target, data set): the mean of every figure over the seeds that succeeded.

    The ends of intervals, which are over queries, are averaged too. A single row passes as it is; where all seeds
    failed, the first stands. The keys of the artefacts are those of the first seed.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for cell in cells:
        place = (setting_of(cell), str(cell["source"]), str(cell["target"]), str(cell["dataset"]))
        groups.setdefault(place, []).append(cell)
    return [_mean_row(group) for group in groups.values()]


def _mean_row(group: list[Row]) -> Row:
    done = sorted((cell for cell in group if cell["status"] == "ok"), key=lambda cell: number(cell["seed"]))
    if len(done) < 2:
        return (done or group)[0]
    averaged = [name for name in done[0] if measure_of(name)]
    values = {name: [number(cell[name]) for cell in done] for name in averaged}
    return {**done[0], **{name: float(np.mean(column)) for name, column in values.items()}}


def outcome(results: Results, rank_key: Any) -> PerQuery:
    """The per-query outcome stored for a successful row.

    Raises:
        BenchError: the results hold none.
    """
    try:
        return results.per_query[rank_key]
    except KeyError:
        raise BenchError(
            f"the results hold no per-query outcome for the ranking {rank_key!r}: rank again, then write the report"
        ) from None


def home_rows(results: Results) -> list[Row]:
    """Clean rows of every victim on its home data set; all its rows where it has no home. Sorted by victim."""
    clean = sorted(rows(results.clean), key=lambda row: (row["victim"], row["dataset"]))
    with_home = {row["victim"] for row in clean if is_true(row["home"])}
    return [row for row in clean if is_true(row["home"]) or row["victim"] not in with_home]


def format_value(column: str, value: Any) -> str:
    """A value as the CSV files show it: percentages with 2 decimals, visibility measures with 4, missing empty."""
    if is_missing(value):
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    measure = measure_of(column)
    if measure is not None:
        text = f"{float(value):.{measure.csv_digits}f}"
        return text[1:] if text.startswith("-") and not text.strip("-0.") else text  # no "-0.00"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # whole-number columns turn to float where a value is missing
    return str(value)


def write_csv(frame: pd.DataFrame, path: Path) -> Path:
    """Write a table of this module as UTF-8 CSV with "\\n" line ends, in one step; returns `path`."""
    return replace_file(path, csv_text(frame).encode())


def csv_text(frame: pd.DataFrame) -> str:
    """A table of this module as CSV; figures as `format_value` shows them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(frame.columns)
    for row in rows(frame):
        writer.writerow([format_value(column, value) for column, value in row.items()])
    return text.getvalue()


def epsilons(plan: Iterable[Setting]) -> list[int]:
    """Every epsilon at which queries are attacked: those of the worst cases, sorted."""
    return sorted({setting.epsilon for setting in plan if setting.perturbs == "query"})
