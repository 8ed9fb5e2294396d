"""Worst case of a victim: the lowest outcome of each query without attack and over all attacks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from reid_attack_bench.errors import BenchError
from reid_attack_bench.report.results import NOT_APPLICABLE, CellRow, CleanRow, PerQuery, Results
from reid_attack_bench.report.rows import outcome

FORMS = {"": ("hit", "ap"), "_as_clean": ("hit_as_clean", "ap_as_clean")}
"""Suffix of a column → the Rank-1 hits and APs that it counts: a refused query is a miss, or its clean version."""


@dataclass(frozen=True)
class WorstCase:
    """Per-query worst case over the valid queries of a data set.

    Attributes:
        hit, ap: float64 N in [0, 1]; a query that a detector refuses is a miss. Hits of a randomised victim are means
            over draws.
        hit_as_clean, ap_as_clean: the same where a refused query counts as its clean version; equal to `hit` and `ap`
            without a detector.
        identities: int64 N, of the queries.
        missing: number of cells without values, see `missing`.
    """

    hit: np.ndarray
    ap: np.ndarray
    hit_as_clean: np.ndarray
    ap_as_clean: np.ndarray
    identities: np.ndarray
    missing: int


def within(cells: Iterable[CellRow], epsilon: int) -> list[CellRow]:
    """Cells with attacked queries and a budget of at most `epsilon`: those of the worst case at `epsilon`.

    An adversary with a budget may spend less, so the worst case cannot rise with epsilon.
    """
    return [cell for cell in cells if cell.epsilon <= epsilon and cell.perturbs == "query"]


def missing(cells: Iterable[CellRow]) -> int:
    """Number of cells that failed or are not in the store. With one, a worst case is an upper bound."""
    return sum(not cell.ok and not cell.status.startswith(NOT_APPLICABLE) for cell in cells)


def worst_case(results: Results, cells: Iterable[CellRow], clean: CleanRow) -> WorstCase | None:
    """Lowest Rank-1 hit and lowest AP of each query over the clean ranking and the successful cells.

    Hit and AP are minimised separately, over the queries that are valid without attack. With more cells no value
    rises, and none is above the value without attack.

    Args:
        cells: of one target on one data set, see `within`.
        clean: the target on that data set.

    Returns:
        None if the clean evaluation or every cell is missing.

    Raises:
        BenchError: the cells disagree about the number of queries, or an outcome is not stored.
    """
    planned = list(cells)
    attacked = [outcome(results, cell.rank_key) for cell in planned if cell.ok]
    if not attacked or not clean.ok:
        return None
    start = outcome(results, clean.rank_key)
    if {len(each.valid) for each in attacked} != {len(start.valid)}:
        raise BenchError(
            f"rankings of {clean.victim} on {clean.dataset} differ in their number of queries: "
            "the data set changed between them; run the suite again"
        )
    valid = start.valid.astype(bool)
    if not valid.any():
        return None
    lowest = {name: _lowest([start, *attacked], name)[valid] for form in FORMS.values() for name in form}
    return WorstCase(**lowest, identities=start.identities[valid], missing=missing(planned))


def _lowest(outcomes: Iterable[PerQuery], name: str) -> np.ndarray:
    """Smallest value of each query, float64 N; infinite for a query that is valid nowhere."""
    return np.min([np.where(each.valid, getattr(each, name), np.inf) for each in outcomes], axis=0).astype(np.float64)
