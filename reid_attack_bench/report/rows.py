"""Rows of the result tables: selection, order, means over seeds, and values as text."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import replace_file
from reid_attack_bench.metrics.catalogue import Measure, measure_of
from reid_attack_bench.report.record import models
from reid_attack_bench.report.results import CellRow, CleanRow, PerQuery, Results, Setting
from reid_attack_bench.text import csv_cell

Row = dict[str, Any]
"""Row of a table, by column name."""


def is_missing(value: Any) -> bool:
    """Whether a table value is missing."""
    return value is None or value is pd.NA or value == "" or (isinstance(value, float) and math.isnan(value))


def number(value: Any) -> float:
    """A table value as float, NaN if missing."""
    return math.nan if is_missing(value) else float(value)


def format_number(row: Mapping[str, Any], name: str, digits: int) -> str:
    """A value of a row as text with `digits` decimals, empty if missing."""
    value = number(row.get(name))
    return "" if value != value else f"{value:.{digits}f}"


UNVERIFIED, AMBER = "unverified: ", "amber: "
"""Start of the names of red and of amber flags in the column audit of the leaderboard."""


def audit_text(red: Sequence[str], amber: Sequence[str]) -> str:
    """Flags of a victim as in the column audit: "unverified: zero gradients; amber: more restarts"."""
    return "; ".join(start + ", ".join(names) for start, names in ((UNVERIFIED, red), (AMBER, amber)) if names)


def audit_flags(row: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Names of the red and of the amber flags of a row of the leaderboard."""
    parts = [] if is_missing(row["audit"]) else str(row["audit"]).split("; ")
    red, amber = (
        [name for part in parts if part.startswith(start) for name in part.removeprefix(start).split(", ")]
        for start in (UNVERIFIED, AMBER)
    )
    return red, amber


def is_unverified(row: Mapping[str, Any]) -> bool:
    """Whether a row of the leaderboard has a red flag and stands below the line."""
    return bool(audit_flags(row)[0])


def with_interval(row: Mapping[str, Any], name: str) -> str:
    """A percentage with its interval: "42.0 [38.1, 45.9]"; empty if missing."""
    value, low, high = (number(row.get(f"{name}{end}")) for end in ("", "_low", "_high"))
    if value != value:
        return ""
    return f"{value:.1f}" + (f" [{low:.1f}, {high:.1f}]" if low == low and high == high else "")


def rows(frame: pd.DataFrame) -> list[Row]:
    """Rows of a data frame."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def ordered_cells(results: Results) -> list[CellRow]:
    """All cells, sorted by data set, attack, threat model, source, target and seed: the order of matrix.csv."""
    return sorted(results.cells, key=lambda cell: (cell.dataset, cell.setting, cell.source, cell.target, cell.seed))


def ordered_clean(results: Results) -> list[CleanRow]:
    """All clean evaluations, sorted by data set and victim: the order of clean.csv."""
    return sorted(results.clean, key=lambda row: (row.dataset, row.victim))


def strongest(cells: Iterable[CellRow]) -> CellRow | None:
    """The successful cell with the lowest mAP (ties by source), or None."""
    found = [cell for cell in cells if cell.ok]
    return min(found, key=lambda cell: (cell.value("mAP"), cell.source), default=None)


def over_seeds(cells: Iterable[CellRow]) -> list[CellRow]:
    """One row per (setting, source, target, data set): the mean of every value over the successful seeds.

    The bounds of intervals (by identity) are averaged too. If all seeds failed, the first row is returned. Artefact
    keys are those of the first seed.
    """
    groups: dict[tuple[Setting, str, str, str], list[CellRow]] = {}
    for cell in cells:
        groups.setdefault(cell.place, []).append(cell)
    return [_mean_row(group) for group in groups.values()]


def _mean_row(group: list[CellRow]) -> CellRow:
    done = sorted((cell for cell in group if cell.ok), key=lambda cell: cell.seed)
    if len(done) < 2:
        return (done or group)[0]
    names = [name for name in done[0].values if all(name in cell.values for cell in done)]
    return replace(done[0], values={name: float(np.mean([cell.values[name] for cell in done])) for name in names})


def outcome(results: Results, rank_key: str) -> PerQuery:
    """Per-query outcome of a successful row.

    Raises:
        BenchError: the results have none.
    """
    try:
        return results.per_query[rank_key]
    except KeyError:
        raise BenchError(
            f"no per-query outcome for the ranking {rank_key!r}; run the suite again, then write the report"
        ) from None


def training_data_rows(results: Results) -> list[CleanRow]:
    """Clean rows of every victim on its training data set (all its rows if there is none), sorted by victim."""
    clean = sorted(results.clean, key=lambda row: (row.victim, row.dataset))
    trained_here = {row.victim for row in clean if row.home}
    return [row for row in clean if row.home or row.victim not in trained_here]


def contenders(results: Results) -> list[CleanRow]:
    """`training_data_rows` without the victims that the suite names as sources only."""
    targets = {entry.label for entry in results.record.suite.victims if "target" in entry.roles}
    known = models(results.record.suite)
    return [row for row in training_data_rows(results) if row.victim not in known or known[row.victim].label in targets]


def format_value(column: str, value: Any) -> str:
    """A value as in the CSV files: percentages with 2 decimals, visibility measures with 4, missing values empty."""
    return _formatted(measure_of(column), value)


def _formatted(measure: Measure | None, value: Any) -> str:
    if is_missing(value):
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if measure is not None:
        text = f"{float(value):.{measure.csv_digits}f}"
        return text[1:] if text.startswith("-") and not text.strip("-0.") else text  # no "-0.00"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # integer columns become float if a value is missing
    return str(value)


def write_csv(frame: pd.DataFrame, path: Path) -> Path:
    """Write a table atomically as UTF-8 CSV with "\\n" line ends; returns `path`."""
    return replace_file(path, csv_text(frame).encode())


def csv_text(frame: pd.DataFrame) -> str:
    """A table as CSV, formatted by `format_value`; no cell begins a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, frame.columns))
    measures = [measure_of(str(column)) for column in frame.columns]
    for row in rows(frame):
        # numbers begin no formula
        writer.writerow(
            [
                _formatted(measure, value) if measure is not None else csv_cell(_formatted(None, value))
                for measure, value in zip(measures, row.values(), strict=True)
            ]
        )
    return text.getvalue()


def epsilons(plan: Iterable[Setting]) -> list[int]:
    """Epsilons at which queries are attacked (those of the worst cases), sorted."""
    return sorted({setting.epsilon for setting in plan if setting.perturbs == "query"})
