"""Confidence intervals that resample identities, and their exact limits at 0 and 100 %."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics.bootstrap import interval, intervals


@st.composite
def people(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Values in [0, 1], at least one of them inside, and the identities of two to thirty queries."""
    count = draw(st.integers(2, 30))
    values = draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]), min_size=count, max_size=count))
    identities = draw(st.lists(st.integers(-5, 9), min_size=count, max_size=count))
    return np.array([0.5, *values[1:]]), np.array(identities)


def literally(values: np.ndarray, identities: np.ndarray, samples: int, level: float) -> list[float]:
    """The cluster bootstrap in words: draw as many people as there are, pool their queries, average."""
    rng = np.random.default_rng(123)
    groups = [values[identities == person] for person in np.unique(identities)]
    means = []
    for _ in range(samples):
        pooled = [groups[index] for index in rng.integers(0, len(groups), len(groups))]
        means.append(np.concatenate(pooled).mean())
    return list(np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))


def test_whole_identities_are_resampled_with_all_their_queries() -> None:
    rng = np.random.default_rng(0)
    identities = rng.permutation(np.repeat(np.arange(40), rng.integers(1, 12, 40)))  # of unequal numbers
    values = np.clip(rng.normal(0.5, 0.3, 40)[identities] + rng.normal(0, 0.1, len(identities)), 0, 1)
    expected = literally(values, identities, samples=4000, level=0.9)
    found = interval(values, identities, seed=1, samples=40_000, level=0.9)
    assert list(found) == pytest.approx(expected, abs=0.004)
    assert found[1] - found[0] > 2 * np.subtract(*interval(values, seed=1, level=0.9)[::-1])


def test_two_people_have_three_equally_simple_resamples() -> None:
    values, identities = np.array([0.2, 0.4, 0.9]), np.array([7, 7, 3])
    assert interval(values, identities, seed=0) == pytest.approx((0.3, 0.9))  # one of them twice, at either end
    assert interval(values, identities, seed=0, level=0.4) == pytest.approx((0.5, 0.5))  # both: the mean of queries


@settings(max_examples=80, deadline=None)
@given(people(), st.integers(0, 3))
def test_names_of_people_do_not_matter_and_bounds_enclose_the_means_of_people(case, seed: int) -> None:
    values, identities = case
    low, high = interval(values, identities, seed=seed, samples=200)
    assert interval(values, 1000 - 3 * identities, seed=seed, samples=200) == (low, high)
    by_person = [values[identities == person].mean() for person in np.unique(identities)]
    if len(by_person) > 1:
        assert min(by_person) - 1e-12 <= low <= high <= max(by_person) + 1e-12
    both = intervals(np.stack([values, 1 - values], axis=1), identities, seed=seed, samples=200)
    assert both[0].tolist() == [low, high]
    assert both[1] == pytest.approx([1 - high, 1 - low])


@settings(max_examples=40, deadline=None)
@given(people())
def test_people_of_one_query_each_and_one_person_alone_resample_queries(case) -> None:
    values, _ = case
    by_query = interval(values, seed=0, samples=200)
    assert interval(values, np.arange(len(values))[::-1], seed=0, samples=200) == by_query
    assert interval(values, np.zeros(len(values), int), seed=0, samples=200) == by_query


@settings(max_examples=40, deadline=None)
@given(people(), st.integers(1, 40))
def test_a_query_without_a_match_is_left_out_with_its_identity(case, more: int) -> None:
    values, identities = case
    longer = np.append(values, np.full(more, math.nan)), np.append(identities, np.arange(100, 100 + more))
    assert interval(*longer, seed=0, samples=100) == interval(values, identities, seed=0, samples=100)


def test_all_misses_or_all_hits_have_exact_limits() -> None:
    identities = np.repeat(np.arange(64), 2)
    low, high = interval(np.zeros(128), identities, seed=0)
    assert low == 0
    assert 100 * high == pytest.approx(2.84, abs=0.005)
    # Clopper and Pearson: no hit in 128 has a probability of 2.5 % there
    assert (1 - high) ** 128 == pytest.approx(0.025)
    assert interval(np.ones(128), seed=0) == pytest.approx((1 - high, 1))
    assert interval(np.zeros(1), seed=0, level=0.9) == pytest.approx((0, 0.95))
    assert interval(np.zeros(128), identities, seed=0, exact=False) == (0, 0), "no difference between two attacks"
    mixed = intervals(np.stack([np.zeros(128), np.arange(128) % 2, np.ones(128)], axis=1), identities, seed=0)
    assert mixed[0].tolist() == [0, high]
    assert mixed[2].tolist() == pytest.approx([1 - high, 1])
    assert mixed[1] == pytest.approx([0.5, 0.5]), "here every person is half right"


def test_intervals_by_query_are_too_narrow_where_people_differ_and_by_identity_they_cover() -> None:
    """Queries of 60 people, six each; their outcomes are correlated (ICC 0.5)."""
    rng = np.random.default_rng(5)
    identities = np.repeat(np.arange(60), 6)
    covered = {"query": 0, "identity": 0}
    trials = 200
    for trial in range(trials):
        ease = rng.beta(0.5, 0.5, 60)  # of mean 0.5; ICC = 1 / (0.5 + 0.5 + 1)
        hits = (rng.random(len(identities)) < ease[identities]).astype(float)
        for unit, given_identities in (("query", None), ("identity", identities)):
            low, high = interval(hits, given_identities, seed=trial, samples=300)
            covered[unit] += low <= 0.5 <= high
    assert covered["query"] / trials < 0.82
    assert covered["identity"] / trials > 0.90


def test_every_value_needs_its_identity() -> None:
    with pytest.raises(BenchError, match=r"3 values have identities of shape \(2,\)"):
        interval(np.zeros(3), np.array([1, 2]), seed=0)
