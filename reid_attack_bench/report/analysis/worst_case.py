"""Worst case of a victim: for each query the lowest outcome over all attacks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from reid_attack_bench.errors import BenchError
from reid_attack_bench.report.results import CellRow, Results
from reid_attack_bench.report.rows import outcome


@dataclass(frozen=True)
class WorstCase:
    """Per-query worst case. hit, ap: float N in [0, 1], valid queries only; missing: cells without figures."""

    hit: np.ndarray
    ap: np.ndarray
    missing: int


def worst_case(results: Results, cells: Iterable[CellRow]) -> WorstCase | None:
    """For each query the lowest Rank-1 hit and the lowest AP over the successful of `cells`, or None without any.

    Hit and AP are minimised separately. A query counts where it is valid in every cell.

    Raises:
        BenchError: the cells disagree about the number of queries, or an outcome is not stored.
    """
    planned = list(cells)
    done = [outcome(results, cell.rank_key) for cell in planned if cell.ok]
    if not done:
        return None
    if len({len(each.valid) for each in done}) > 1:
        raise BenchError(
            f"rankings of {planned[0].target} on {planned[0].dataset} differ in their number of queries: "
            "they come from different versions of the data set, so rank again"
        )
    valid = np.logical_and.reduce([each.valid.astype(bool) for each in done])
    if not valid.any():
        return None
    hit = np.min([each.hit[valid] for each in done], axis=0).astype(float)
    ap = np.min([each.ap[valid] for each in done], axis=0).astype(float)
    return WorstCase(hit, ap, len(planned) - len(done))
