"""Measures of impersonation: whether queries retrieve their target identities.

The ranking of a query is the one that is evaluated: without the gallery images of its own identity by its own camera.
Images of its target T by the camera of the query are junk too, as those of its own identity are. Every query that has a
target counts, and the whole gallery is ranked, also for the single-shot protocol of CUHK03.

Success at k (ASR@k): of the queries whose clean version does not have an image of T within the first k, the share whose
adversarial version has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from reid_attack_bench.metrics.bootstrap import intervals
from reid_attack_bench.metrics.ranking import Ranking, rank

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
) -> Ranking:
    """The ranking of every query where the images of its target, int64 Q, are the correct matches.

    Other arguments as for `metrics.ranking.rank`, distances in blocks of rows.
    """

    def without_own_junk() -> Iterator[np.ndarray | Tensor]:
        start = 0
        for block in distances:
            rows = slice(start, start + len(block))
            start += len(block)
            same = query_identities[rows, None] == gallery_identities
            junk = same & (query_cameras[rows, None] == gallery_cameras)
            if isinstance(block, Tensor):  # behind all others is the same as left out
                yield block.masked_fill(torch.from_numpy(junk).to(block.device), torch.inf)
            else:
                yield np.where(junk, np.inf, block)

    return rank(without_own_junk(), targets, gallery_identities, query_cameras, gallery_cameras, max_rank=max_rank)


def targeted_summary(before: Ranking, after: Ranking) -> dict[str, float | None]:
    """Measures of group "targeted" in %, from `rank_targets` of clean and of adversarial queries.

    clean_NAME is the value without attack; NAME_low and NAME_high are 95 % bootstrap intervals over queries. ASR@k is
    None if every clean query already has its target within the first k.
    """
    found: dict[str, float | None] = {}
    for prefix, ranking in (("clean_", before), ("", after)):
        found |= {f"{prefix}target_rank{k}": 100.0 * float(_hits(ranking, k).mean()) for k in RANKS}
        found[f"{prefix}target_mAP"] = 100.0 * float(ranking.ap[ranking.valid].mean())
    columns = np.stack([after.hits[:, 0], after.ap], axis=1)[after.valid]
    for name, (low, high) in zip(("target_rank1", "target_mAP"), intervals(columns, seed=0), strict=True):
        found |= {f"{name}_low": 100.0 * low, f"{name}_high": 100.0 * high}
    for k in RANKS:
        left = ~_hits(before, k)
        found[f"asr{k}"] = 100.0 * float(_hits(after, k)[left].mean()) if left.any() else None
    return found


def _hits(ranking: Ranking, k: int) -> np.ndarray:
    """Bool: a correct match within the first k, of the valid queries."""
    return ranking.first[ranking.valid] < k
