"""Worst case of a victim: the lowest outcome of each query over all attacks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from reid_attack_bench.errors import BenchError
from reid_attack_bench.report.results import CellRow, Results
from reid_attack_bench.report.rows import outcome


@dataclass(frozen=True)
class WorstCase:
    """Per-query worst case. hit, ap: float N in [0, 1], valid queries only; missing: number of cells without values."""

    hit: np.ndarray
    ap: np.ndarray
    missing: int


def worst_case(results: Results, cells: Iterable[CellRow]) -> WorstCase | None:
    """Lowest Rank-1 hit and lowest AP of each query over the successful cells, or None if there are none.

    Hit and AP are minimised separately. Only queries that are valid in every cell are used.

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
            "the data set changed between them; run the suite again"
        )
    valid = np.logical_and.reduce([each.valid.astype(bool) for each in done])
    if not valid.any():
        return None
    hit = np.min([each.hit[valid] for each in done], axis=0).astype(float)
    ap = np.min([each.ap[valid] for each in done], axis=0).astype(float)
    return WorstCase(hit, ap, len(planned) - len(done))
