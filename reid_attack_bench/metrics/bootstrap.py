"""Confidence intervals of a mean over queries, by the percentile bootstrap (Efron and Tibshirani, 1993)."""

from __future__ import annotations

import numpy as np

from reid_attack_bench.errors import BenchError

_DRAWS = 4_000_000  # random indices held at a time


def interval(values: np.ndarray, *, seed: int, samples: int = 2000, level: float = 0.95) -> tuple[float, float]:
    """The bounds between which the mean of `values` lies with confidence `level`, in the units of `values`.

    Queries are drawn with replacement and averaged, `samples` times; the bounds are the two quantiles
    of those means. That covers the choice of queries and nothing else: not the training of the
    victim, nor the gallery, nor the seed of the attack. To compare two attacks on the same queries, pass
    their difference per query: overlap of their two intervals says little.

    Args:
        values: one number per query, such as `Ranking.ap` or `Ranking.hits[:, 0]`; NaN (no correct match) is dropped.
        seed: the same seed gives the same bounds.
        samples: number of resamples.
        level: confidence, between 0 and 1.

    Raises:
        BenchError: there is no value, or `level` or `samples` is out of range.
    """
    values = np.asarray(values, dtype=np.float64).ravel()
    values = values[~np.isnan(values)]
    if len(values) == 0:
        raise BenchError("a confidence interval needs at least one query with a correct match in the gallery")
    if not 0.0 < level < 1.0 or samples < 1:
        raise BenchError(f"level must lie between 0 and 1 and samples be positive, not {level} and {samples}")
    rng = np.random.default_rng(seed)
    step = max(1, _DRAWS // len(values))
    means = np.concatenate(
        [
            values[rng.integers(0, len(values), size=(min(step, samples - start), len(values)))].mean(axis=1)
            for start in range(0, samples, step)
        ]
    )
    low, high = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


__all__ = ["interval"]
