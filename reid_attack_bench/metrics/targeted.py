"""Measures of impersonation: whether queries retrieve their target identities.

The ranking of a query is the one that is evaluated: without the gallery images of its own identity by its own camera,
and with the clothes protocol without those in its own clothes. Images of its target T by the camera of the query are
junk too, as those of its own identity are; clothes of T are not those of the query. Every query that has a target
counts, and the whole gallery is ranked, also for the single-shot protocol of CUHK03.

Success at k (ASR@k): of the queries whose clean version does not have an image of T within the first k, the share whose
adversarial version has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from torch import Tensor

from reid_attack_bench.metrics.pairs import SameIdentity
from reid_attack_bench.metrics.ranking import Ranking, bounds, rank

RANKS = (1, 5, 10)
"""k of targeted Rank-k and of ASR@k."""


# size: the arrays of metrics.ranking.rank, and the targets
def rank_targets(
    distances: Iterable[np.ndarray | Tensor],
    targets: np.ndarray,
    query_identities: np.ndarray,
    gallery_identities: np.ndarray,
    query_cameras: np.ndarray,
    gallery_cameras: np.ndarray,
    max_rank: int = 50,
    *,
    query_clothes: np.ndarray | None = None,
    gallery_clothes: np.ndarray | None = None,
) -> Ranking:
    """The ranking of every query where the images of its target, int64 Q, are the correct matches.

    Other arguments as for `metrics.ranking.top_matches`, distances in blocks of rows.
    """
    labels = query_identities, gallery_identities, query_cameras, gallery_cameras, query_clothes, gallery_clothes
    own = SameIdentity.of(*labels)

    def without_own_junk() -> Iterator[np.ndarray | Tensor]:
        start = 0
        for block in distances:
            rows, columns = own.pairs(start, len(block))
            junk = own.junk(start + rows, columns)
            start += len(block)
            kept = block.clone() if isinstance(block, Tensor) else block.copy()
            kept[rows[junk], columns[junk]] = np.inf  # behind all others is the same as left out
            yield kept

    return rank(without_own_junk(), targets, gallery_identities, query_cameras, gallery_cameras, max_rank=max_rank)


def targeted_summary(before: Ranking, after: Ranking, identities: np.ndarray | None = None) -> dict[str, float | None]:
    """Measures of group "targeted" in %, from `rank_targets` of clean and of adversarial queries.

    clean_NAME is the value without attack; NAME_low and NAME_high are 95 % bootstrap intervals. ASR@k is None if every
    clean query already has its target within the first k. A clean query of a randomised victim that has it in some
    draws counts by the share of the others.

    Args:
        identities: int N, of all queries; they are resampled. None resamples queries.
    """
    found: dict[str, float | None] = {}
    for prefix, ranking in (("clean_", before), ("", after)):
        found |= {f"{prefix}target_rank{k}": 100.0 * float(_hits(ranking, k).mean()) for k in RANKS}
        found[f"{prefix}target_mAP"] = 100.0 * float(ranking.ap[ranking.valid].mean())
    found |= {f"target_{name}": value for name, value in bounds(after, identities).items()}
    for k in RANKS:
        left = 1.0 - _hits(before, k)
        found[f"asr{k}"] = 100.0 * float((_hits(after, k) * left).sum() / left.sum()) if left.any() else None
    return found


def _hits(ranking: Ranking, k: int) -> np.ndarray:
    """Float64 in [0, 1]: a correct match within the first k, of the valid queries."""
    return ranking.hits[ranking.valid, k - 1].astype(np.float64)
