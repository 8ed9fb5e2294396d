"""What an attack that hides takes away, from the outcome of each query without and with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from reid_attack_bench.metrics.bootstrap import intervals

RANKS = (1, 10)
"""k of the success rate."""


def success_rates(
    before: Mapping[int, np.ndarray], attacks: Sequence[Mapping[int, np.ndarray]], identities: np.ndarray | None = None
) -> list[dict[str, float | None]]:
    """Of each attack success1 and success10 in %, with success1_low and success1_high, a 95 % interval.

    None where no query counts. Success at k: of the queries whose clean version has the right identity within the first
    k, the share whose adversarial version has not. A refused query is a miss: refused under attack it is a success,
    refused without one it does not count. A clean query of a randomised victim that has it in some draws counts by
    their share.

    Args:
        before: k → hits of N valid queries without an attack, in [0, 1].
        attacks: the same with each attack; their intervals are from the same resamples.
        identities: int N; they are resampled. None resamples queries.
    """
    found: list[dict[str, float | None]] = [{} for _ in attacks]
    for k in RANKS:
        weights = before[k].astype(np.float64)
        if not weights.any() or not attacks:
            names = [f"success{k}", *([f"success{k}_low", f"success{k}_high"] if k == 1 else [])]
            found = [each | dict.fromkeys(names) for each in found]
            continue
        lost = np.stack([1.0 - after[k].astype(np.float64) for after in attacks], axis=1)
        for each, column in zip(found, lost.T, strict=True):
            each[f"success{k}"] = 100.0 * float(weights @ np.ascontiguousarray(column) / weights.sum())
        if k == 1:
            bounds = intervals(lost, identities, seed=0, weights=weights)
            for each, (low, high) in zip(found, bounds.tolist(), strict=True):
                each |= {"success1_low": 100.0 * low, "success1_high": 100.0 * high}
    return found


def relative_drop(before: float, after: float) -> float | None:
    """(before − after) / before in %; None where nothing was found before."""
    return 100.0 * (before - after) / before if before > 0.0 else None
