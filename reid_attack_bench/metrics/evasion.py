"""What an attack that hides takes away, from the outcome of each query without and with it."""

from __future__ import annotations

import numpy as np

from reid_attack_bench.metrics.bootstrap import interval

RANKS = (1, 10)
"""k of the success rate."""


def success_rates(
    before: dict[int, np.ndarray], after: dict[int, np.ndarray], identities: np.ndarray | None = None
) -> dict[str, float | None]:
    """success1 and success10 in %, with success1_low and success1_high, a 95 % interval; None without such queries.

    Success at k: of the queries whose clean version has the right identity within the first k, the share whose
    adversarial version has not. A refused query is a miss: refused under attack it is a success, refused without one it
    does not count. A clean query of a randomised victim that has it in some draws counts by their share.

    Args:
        before, after: k → hits of N valid queries without and with the attack, in [0, 1].
        identities: int N; they are resampled. None resamples queries.
    """
    found: dict[str, float | None] = {}
    for k in RANKS:
        weights = before[k].astype(np.float64)
        lost = 1.0 - after[k].astype(np.float64)
        found[f"success{k}"] = 100.0 * float(weights @ lost / weights.sum()) if weights.any() else None
        if k == 1:
            ends = interval(lost, identities, seed=0, weights=weights) if weights.any() else None
            for i, end in enumerate(("low", "high")):
                found[f"success{k}_{end}"] = None if ends is None else 100.0 * ends[i]
    return found


def relative_drop(before: float, after: float) -> float | None:
    """(before − after) / before in %; None where nothing was found before."""
    return 100.0 * (before - after) / before if before > 0.0 else None
