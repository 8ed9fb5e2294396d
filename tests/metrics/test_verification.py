"""True positive rate at a fixed false positive rate: against a full sort, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reid_attack_bench.metrics import catalogue, verification
from reid_attack_bench.metrics.pairs import SameIdentity
from reid_attack_bench.metrics.verification import RATES, PairDistances, true_positive_rates


def labels(rng: np.random.Generator, queries: int, gallery: int, people: int) -> SameIdentity:
    sizes = (people, queries), (people, gallery), (3, queries), (3, gallery)
    return SameIdentity.of(*(rng.integers(0, high, count) for high, count in sizes))


def literally(same: SameIdentity, distances: np.ndarray, attacked: np.ndarray, rate: int) -> float | None:
    """The definition, on all pairs at once."""
    alike = same.query.identities[:, None] == same.gallery.identities
    genuine = alike & (same.query.cameras[:, None] != same.gallery.cameras)
    impostors = sorted(distances[~alike].tolist())
    allowed = len(impostors) // rate
    if allowed == 0:
        return None
    accepted = [each < impostors[allowed] for each in attacked[genuine].tolist()]
    assert sum(each < impostors[allowed] for each in impostors) <= len(impostors) / rate
    return 100 * sum(accepted) / len(accepted)


def passed(same: SameIdentity, distances: np.ndarray, rows: int, *, tensors: bool, impostors: bool) -> PairDistances:
    pairs = PairDistances(same, impostors=impostors)
    blocks: Iterator = (distances[i : i + rows] for i in range(0, len(distances), rows))
    if tensors:
        blocks = map(torch.from_numpy, blocks)
    through = list(pairs.watch(blocks))
    np.testing.assert_array_equal(np.concatenate(through), distances)
    return pairs


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from([3, 40, 10**6]), st.booleans())
def test_rates_are_those_of_a_full_sort(seed: int, rows: int, levels: int, tensors: bool) -> None:
    rng = np.random.default_rng(seed)
    same = labels(rng, queries=int(rng.integers(1, 25)), gallery=int(rng.integers(1, 120)), people=4)
    shape = len(same.query), len(same.gallery)
    clean, attacked = (rng.integers(0, levels, shape).astype(np.float32) for _ in "ab")
    attacked[0] = np.inf
    thresholds = passed(same, clean, rows, tensors=tensors, impostors=True).thresholds()
    genuine = passed(same, attacked, rows, tensors=tensors, impostors=False).genuine()
    if len(genuine) == 0:
        return
    found = true_positive_rates(genuine[None], thresholds[None])
    for name, rate in RATES.items():
        expected = literally(same, clean, attacked, rate)
        assert found[name] == (None if expected is None else pytest.approx(expected))


def test_only_the_nearest_impostors_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    same = labels(rng, queries=500, gallery=1000, people=50)
    distances = np.sort(rng.random((500, 1000)).astype(np.float32).ravel())[::-1].reshape(500, 1000)  # hardest order
    pairs = PairDistances(same, impostors=True)
    for _ in pairs.watch(iter(np.split(distances, 100))):
        assert pairs._nearest is not None
        assert len(pairs._nearest.buffer) == 2 * (pairs._count // 100 + 1)
        assert pairs._nearest.held <= len(pairs._nearest.buffer)
    impostors = np.sort(distances[same.query.identities[:, None] != same.gallery.identities])
    expected = [impostors[len(impostors) // rate] for rate in RATES.values()]
    np.testing.assert_array_equal(pairs.thresholds(), expected)


def test_too_few_impostors_are_no_guess() -> None:
    query, gallery = np.zeros(1, int), np.r_[0, np.ones(500, int)]
    same = SameIdentity.of(query, gallery, query, gallery * 0 + 1)
    distances = np.linspace(0, 1, 501, dtype=np.float32)[None]
    pairs = passed(same, distances, 1, tensors=False, impostors=True)
    thresholds = pairs.thresholds()
    assert math.isnan(thresholds[0])
    assert thresholds[1] == distances[0, 6], "five of 500 may be accepted, and the genuine one is the nearest"
    found = true_positive_rates(pairs.genuine()[None], thresholds[None])
    assert found == {"tpr_fpr1e3": None, "tpr_fpr1e2": 100.0}


def test_one_distance_for_all_accepts_nobody() -> None:
    rng = np.random.default_rng(1)
    same = labels(rng, queries=20, gallery=200, people=5)
    pairs = passed(same, np.ones((20, 200), np.float32), 7, tensors=True, impostors=True)
    assert true_positive_rates(pairs.genuine()[None], pairs.thresholds()[None]) == dict.fromkeys(RATES, 0.0)


def test_refused_queries_are_not_accepted_and_draws_are_averaged() -> None:
    rng = np.random.default_rng(2)
    same = labels(rng, queries=30, gallery=200, people=5)
    pairs = passed(same, np.zeros((30, 200), np.float32), 7, tensors=True, impostors=False)
    refused = np.arange(30) < 10
    genuine = pairs.genuine(refused)
    alike = same.query.identities[:, None] == same.gallery.identities
    counts = (alike & (same.query.cameras[:, None] != same.gallery.cameras)).sum(axis=1)
    both = np.stack([pairs.genuine(), genuine])
    thresholds = np.array([[0.5, np.inf], [0.5, np.inf]])
    kept = counts[~refused].sum() / counts.sum()
    assert true_positive_rates(both, thresholds) == pytest.approx(dict.fromkeys(RATES, 100 * (1 + kept) / 2))
    thresholds[1, 0] = 0.0
    assert true_positive_rates(both, thresholds)["tpr_fpr1e3"] == pytest.approx(50.0)


def test_rates_are_measures_of_the_catalogue() -> None:
    assert tuple(RATES) == tuple(measure.name for measure in catalogue.of_group("verification"))
    assert verification.RATES["tpr_fpr1e3"] == 1000
