"""Confidence intervals of a mean over queries, by the percentile bootstrap (Efron and Tibshirani, 1993).

Queries of one person are alike, so by default whole identities are resampled (the cluster bootstrap; Davison and
Hinkley, 1997, section 3.8). Resampling queries as if they were independent gives intervals that are too narrow.
"""

from __future__ import annotations

import numpy as np

from reid_attack_bench.errors import BenchError

_DRAWS = 100_000  # random indices drawn at a time; they fit in the cache of a CPU
_MANY = 8  # columns from which a matrix product is faster


def interval(
    values: np.ndarray,
    identities: np.ndarray | None = None,
    *,
    seed: int,
    samples: int = 2000,
    level: float = 0.95,
    exact: bool = True,
    weights: np.ndarray | None = None,
) -> tuple[float, float]:
    """Confidence interval (low, high) of the mean of `values`, in the units of `values`.

    Identities are drawn with replacement, each with all its queries, and the mean over these queries is taken,
    `samples` times; the bounds are two quantiles of these means. The interval covers the choice of people only, not the
    training of the victim, the gallery or the seed of the attack. To compare two attacks on the same queries, pass
    their difference per query: whether their two intervals overlap says little.

    Args:
        values: one number per query, such as `Ranking.ap` or `Ranking.hits[:, 0]`; NaN (no correct match) is dropped.
        identities: identity of each query, N. None, or one identity in all, resamples queries: right where no two
            queries are of one person.
        seed: the same seed gives the same bounds.
        samples: number of resamples.
        level: confidence, between 0 and 1.
        exact: `values` are shares in [0, 1]. If all are 0, or all are 1, every resample is the same; the bounds are
            then those of Clopper and Pearson (1934) for as many independent queries. Set it to False for differences.
        weights: of each query, N, not negative; the interval is that of the weighted mean. A query of weight 0 is
            dropped.

    Raises:
        BenchError: there is no value, `level` or `samples` is out of range, or `identities` is of another length.
    """
    columns = np.asarray(values).reshape(-1, 1)
    low, high = intervals(columns, identities, seed=seed, samples=samples, level=level, exact=exact, weights=weights)[0]
    return float(low), float(high)


def intervals(
    values: np.ndarray,
    identities: np.ndarray | None = None,
    *,
    seed: int,
    samples: int = 2000,
    level: float = 0.95,
    exact: bool = True,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Intervals of all columns of N×C `values`, from the same resamples: float64 C×2, equal to `interval` of each
    but for rounding.

    A query with NaN in any column is dropped from all.
    """
    values = np.asarray(values, dtype=np.float64)
    if identities is not None and np.shape(identities) != values.shape[:1]:
        raise BenchError(f"{len(values)} values have identities of shape {np.shape(identities)}: pass one for each")
    kept = ~np.isnan(values).any(axis=1)
    if weights is not None:
        kept &= np.asarray(weights) > 0.0
        weights = np.asarray(weights, dtype=np.float64)[kept]
    values, identities = values[kept], None if identities is None else np.asarray(identities)[kept]
    if len(values) == 0:
        raise BenchError("a confidence interval needs at least one query with a correct match in the gallery")
    if not 0.0 < level < 1.0 or samples < 1:
        raise BenchError(f"level must lie between 0 and 1 and samples be positive, not {level} and {samples}")
    columns, sizes = _per_identity(values, identities, weights)
    means = _resampled(columns, sizes, samples, np.random.default_rng(seed))
    bounds = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0], axis=1).T
    if exact:
        least = ((1.0 - level) / 2.0) ** (1.0 / len(values))
        bounds[(values == 0.0).all(axis=0)] = 0.0, 1.0 - least
        bounds[(values == 1.0).all(axis=0)] = least, 1.0
    return bounds


def resampled_means(
    values: np.ndarray, identities: np.ndarray, rng: np.random.Generator, samples: int = 2000
) -> np.ndarray:
    """Means of the columns of N×C `values` over resamples of identities, float64 C×samples, from the same resamples."""
    columns, sizes = _per_identity(np.asarray(values, dtype=np.float64), identities, None)
    return _resampled(columns, sizes, samples, rng)


def _per_identity(
    values: np.ndarray, identities: np.ndarray | None, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Sums over the queries of each identity, C×K, and their number or weight, K; None where each has one."""
    columns = np.ascontiguousarray(values.T if weights is None else values.T * weights)
    if identities is None:
        return columns, weights
    _, first, group = np.unique(identities, return_index=True, return_inverse=True)
    if len(first) in (1, len(values)):
        return columns, weights
    group = first.argsort().argsort()[group]  # in order of appearance, so that names do not matter
    sizes = np.bincount(group, weights=weights).astype(float)
    return np.stack([np.bincount(group, weights=column) for column in columns]), sizes


def _resampled(columns: np.ndarray, sizes: np.ndarray | None, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Means of C×K `columns` over `samples` resamples of K, C×samples; weighted by `sizes`."""
    count = columns.shape[1]
    means = np.empty((len(columns), samples))
    step = max(1, _DRAWS // count)
    for start in range(0, samples, step):
        part = slice(start, min(start + step, samples))
        drawn = rng.integers(0, count, size=(part.stop - start, count))
        if len(columns) < _MANY:
            for column, into in zip(columns, means, strict=True):
                column.take(drawn).mean(axis=1, out=into[part])
        else:
            means[:, part] = columns @ _times_drawn(drawn).T / count
        if sizes is not None:
            means[:, part] /= sizes.take(drawn).mean(axis=1)
    return means


def _times_drawn(drawn: np.ndarray) -> np.ndarray:
    """Number of times that each of K was drawn in each of S resamples of K indices, float64 S×K."""
    samples, count = drawn.shape
    places = drawn + count * np.arange(samples)[:, None]
    return np.bincount(places.ravel(), minlength=samples * count).reshape(samples, count).astype(np.float64)
