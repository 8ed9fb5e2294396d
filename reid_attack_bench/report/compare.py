"""What changed from one run to another: the same cells, the same queries, paired."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics.bootstrap import interval
from reid_attack_bench.report import tables
from reid_attack_bench.report.results import PerQuery, Results
from reid_attack_bench.report.tables import Row

COLUMNS = (
    "attack", "epsilon", "pixels", "perturbs", "source", "target", "dataset", "seed", "queries",
    "rank1_a", "rank1_b", "rank1_change", "rank1_change_low", "rank1_change_high",
    "mAP_a", "mAP_b", "mAP_change", "mAP_change_low", "mAP_change_high", "changed",
)  # fmt: skip
"""Columns of a comparison. Changes are B − A in points, with 95 % bootstrap intervals over the queries of both.

attack is "clean" for a row without an attack. changed: the interval of the mAP excludes 0.
"""

_PLACE = COLUMNS[:8]


def compare(a: Results, b: Results) -> pd.DataFrame:
    """One row for each cell and each clean evaluation that succeeded in both runs, the largest change of mAP first.

    Raises:
        BenchError: the runs have nothing in common, or the same cell has other queries.
    """
    first, second = dict(_cells(a)), dict(_cells(b))
    shared = [place for place in first if place in second]
    if not shared:
        raise BenchError(
            "the two runs have no cell in common: same labels of attack, source and target, same budget, data set and "
            "seed are compared"
        )
    rows = [_row(place, first[place], second[place], a.seed) for place in shared]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.sort_values("mAP_change", key=abs, ascending=False, kind="stable").reset_index(drop=True)


def only_in(a: Results, b: Results) -> tuple[int, int]:
    """How many cells and clean evaluations succeeded in one of the runs only."""
    first, second = dict(_cells(a)), dict(_cells(b))
    return len(first.keys() - second.keys()), len(second.keys() - first.keys())


def _cells(results: Results) -> Iterator[tuple[tuple[Any, ...], PerQuery]]:
    for row in tables.rows(results.clean):
        if row["status"] == "ok":
            place = ("clean", 0, 0, "", "", row["victim"], row["dataset"], 0)
            yield place, tables.outcome(results, row["rank_key"])
    for cell in tables.rows(results.cells):
        if cell["status"] == "ok":
            setting = tables.setting_of(cell)
            place = (
                setting.attack, setting.epsilon, setting.pixels, setting.perturbs, cell["source"], cell["target"],
                cell["dataset"], cell["seed"],
            )  # fmt: skip
            yield place, tables.outcome(results, cell["rank_key"])


def _row(place: tuple[Any, ...], a: PerQuery, b: PerQuery, seed: int) -> Row:
    if len(a.valid) != len(b.valid) or (a.valid != b.valid).any():
        raise BenchError(
            f"{place[0]} on {place[5]}, {place[6]}: the runs ranked {len(a.valid)} and {len(b.valid)} queries that are "
            "not the same; compare runs on the same data"
        )
    row: Row = dict(zip(_PLACE, place, strict=True)) | {"queries": int(a.valid.sum())}
    for name, before, after in (("rank1", a.hit, b.hit), ("mAP", a.ap, b.ap)):
        change = 100.0 * (after[a.valid] - before[a.valid])
        low, high = interval(change, seed=seed)
        row |= {
            f"{name}_a": 100.0 * float(np.mean(before[a.valid])),
            f"{name}_b": 100.0 * float(np.mean(after[a.valid])),
        }
        row |= {f"{name}_change": float(change.mean()), f"{name}_change_low": low, f"{name}_change_high": high}
    return row | {"changed": row["mAP_change_low"] > 0 or row["mAP_change_high"] < 0}
