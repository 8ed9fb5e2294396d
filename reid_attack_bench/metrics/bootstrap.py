"""Confidence intervals of a mean over queries, by the percentile bootstrap (Efron and Tibshirani, 1993)."""

from __future__ import annotations

import numpy as np

from reid_attack_bench.errors import BenchError

_DRAWS = 100_000  # random indices drawn at a time; they fit in the cache of a CPU


def interval(values: np.ndarray, *, seed: int, samples: int = 2000, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval (low, high) of the mean of `values`, in the units of `values`.

    Queries are drawn with replacement and averaged, `samples` times; the bounds are two quantiles of these means.
    The interval covers the choice of queries only, not the training of the victim, the gallery or the seed of the
    attack. To compare two attacks on the same queries, pass their difference per query: whether their two intervals
    overlap says little.

    Args:
        values: one number per query, such as `Ranking.ap` or `Ranking.hits[:, 0]`; NaN (no correct match) is dropped.
        seed: the same seed gives the same bounds.
        samples: number of resamples.
        level: confidence, between 0 and 1.

    Raises:
        BenchError: there is no value, or `level` or `samples` is out of range.
    """
    low, high = intervals(np.asarray(values).reshape(-1, 1), seed=seed, samples=samples, level=level)[0]
    return float(low), float(high)


def intervals(values: np.ndarray, *, seed: int, samples: int = 2000, level: float = 0.95) -> np.ndarray:
    """Intervals of all columns of N×C `values`, from the same resamples: float64 C×2, equal to `interval` of each.

    A query with NaN in any column is dropped from all.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values).any(axis=1)]
    if len(values) == 0:
        raise BenchError("a confidence interval needs at least one query with a correct match in the gallery")
    if not 0.0 < level < 1.0 or samples < 1:
        raise BenchError(f"level must lie between 0 and 1 and samples be positive, not {level} and {samples}")
    rng = np.random.default_rng(seed)
    columns = np.ascontiguousarray(values.T)
    means = np.empty((len(columns), samples))
    step = max(1, _DRAWS // len(values))
    for start in range(0, samples, step):
        drawn = rng.integers(0, len(values), size=(min(step, samples - start), len(values)))
        for column, into in zip(columns, means, strict=True):
            column.take(drawn).mean(axis=1, out=into[start : start + step])
    return np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0], axis=1).T
