"""Tests of a mean difference: over seeds, over the identities of queries, and over several claims at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.05
"""Probability at which any claim of a report is decided by chance."""

NONE = 1e-12
"""Deviation below which values are equal, as a share of their mean."""

MOST_SEEDS = 1000
"""Largest number of seeds that `seeds_needed` names."""


@dataclass(frozen=True)
class Estimate:
    """A mean with the 95 % interval and the two-sided p-value of Student's t-test that it is 0.

    NaN without two independent values. count: number of these.
    """

    mean: float
    low: float
    high: float
    p: float
    count: int


def over_values(values: np.ndarray) -> Estimate:
    """Student's t-test of independent `values`, such as one difference for each seed of an attack."""
    count = len(values)
    mean = float(np.mean(values)) if count else math.nan
    error = float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else math.nan
    return _estimate(mean, error, count)


def over_clusters(values: Sequence[np.ndarray], clusters: Sequence[np.ndarray]) -> Estimate:
    """The same of the mean of several means over queries, where queries of one cluster are alike.

    A cluster counts as one observation: its standard error is that of the linearised estimate (Cochran, 1977,
    section 6.3), with as many degrees of freedom as there are clusters, less one.

    Args:
        values: for each place one number per query.
        clusters: cluster of each of them; the same name in two places is one cluster.
    """
    names = np.unique(np.concatenate(clusters))
    influence = np.zeros(len(names))
    for each, cluster in zip(values, clusters, strict=True):
        at = np.searchsorted(names, cluster)
        influence += np.bincount(at, weights=each - each.mean(), minlength=len(names)) / (len(each) * len(values))
    count = len(names)
    error = math.sqrt(count / (count - 1) * float(np.sum(influence**2))) if count > 1 else math.nan
    return _estimate(float(np.mean([each.mean() for each in values])), error, count)


def _estimate(mean: float, error: float, count: int) -> Estimate:
    if count < 2:
        return Estimate(mean, math.nan, math.nan, math.nan, count)
    if error <= NONE * abs(mean):  # all are equal: the p-value of a sign test, since that of t would be 0
        return Estimate(mean, mean, mean, 1.0 if mean == 0.0 else 2.0 ** (1 - count), count)
    half = float(stats.t.ppf(1.0 - LEVEL / 2.0, count - 1)) * error
    p = 2.0 * float(stats.t.sf(abs(mean) / error, count - 1))
    return Estimate(mean, mean - half, mean + half, p, count)


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down (1979); some true null is below α with probability α."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    adjusted, highest = [math.nan] * len(values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = highest
    return adjusted


def deviation_of(low: float, high: float, count: int) -> float:
    """Standard deviation of `count` values with this 95 % interval, see `over_values`."""
    return (high - low) / 2.0 * math.sqrt(count) / float(stats.t.ppf(1.0 - LEVEL / 2.0, count - 1))


def seeds_needed(mean: float, deviation: float, level: float = LEVEL) -> int | None:
    """Smallest number of seeds whose t-interval at this mean and standard deviation excludes 0; None above MOST_SEEDS.

    Without any deviation, the smallest number for the sign test of `over_values`. level: 1 minus the confidence.
    """
    counts = np.arange(2, MOST_SEEDS + 1)
    if deviation <= NONE * abs(mean):
        enough = counts[0.5 ** (counts - 1.0) < level] if mean else counts[:0]
    else:
        half = stats.t.ppf(1.0 - level / 2.0, counts - 1) * deviation / np.sqrt(counts)
        enough = counts[half < abs(mean)]
    return int(enough[0]) if len(enough) else None
