"""Success rate and relative drop of attacks that hide."""

from __future__ import annotations

import numpy as np
import pytest

from reid_attack_bench.metrics import catalogue
from reid_attack_bench.metrics.bootstrap import interval, intervals
from reid_attack_bench.metrics.evasion import relative_drop, success_rates


def test_success_is_of_the_queries_that_were_found() -> None:
    before = {1: np.array([1.0, 1, 1, 0, 0]), 10: np.array([1.0, 1, 1, 1, 0])}
    after = {1: np.array([0.0, 0, 1, 1, 0]), 10: np.array([0.0, 1, 1, 1, 1])}
    [found] = success_rates(before, [after])
    assert found["success1"] == pytest.approx(200 / 3), "the fourth was not found before, and does not count"
    assert found["success10"] == pytest.approx(25.0)
    assert found["success1_low"] <= found["success1"] <= found["success1_high"]  # type: ignore[operator]
    names = [measure.name for measure in catalogue.of_group("evasion")]
    assert {name for name in found if name in names} == {"success1", "success10"}
    assert set(found) - set(names) == set(catalogue.interval_columns("evasion"))


def test_nobody_found_before_is_no_success() -> None:
    none = {1: np.zeros(3), 10: np.zeros(3)}
    names = ("success1", "success1_low", "success1_high", "success10")
    assert success_rates(none, [none]) == [dict.fromkeys(names)]


def test_the_interval_of_success_resamples_identities_of_the_queries_that_were_found() -> None:
    rng = np.random.default_rng(0)
    identities = rng.integers(0, 12, 90)
    before, after = (rng.integers(0, 2, 90).astype(np.float32) for _ in "ab")
    [found] = success_rates({1: before, 10: before}, [{1: after, 10: after}], identities)
    kept = before == 1
    expected = interval(1.0 - after[kept], identities[kept], seed=0)
    assert (found["success1_low"], found["success1_high"]) == pytest.approx(tuple(100 * end for end in expected))
    assert expected != interval(1.0 - after[kept], seed=0)


def test_many_attacks_at_once_are_as_one_after_the_other() -> None:
    rng = np.random.default_rng(2)
    identities, before = rng.integers(0, 9, 60), rng.integers(0, 2, 60).astype(np.float32)
    attacks = [{k: rng.integers(0, 2, 60).astype(np.float32) for k in (1, 10)} for _ in range(20)]
    clean = {1: before, 10: np.maximum(before, attacks[0][10])}
    assert success_rates(clean, []) == []
    for each, alone in zip(success_rates(clean, attacks, identities), attacks, strict=True):
        assert each == pytest.approx(success_rates(clean, [alone], identities)[0], abs=1e-9)


def test_a_randomised_victim_counts_by_the_share_of_draws() -> None:
    before, after = {1: np.array([1.0, 0.5]), 10: np.ones(2)}, {1: np.array([0.2, 0.0]), 10: np.ones(2)}
    [found] = success_rates(before, [after])
    assert found["success1"] == pytest.approx(100 * (0.8 + 0.5) / 1.5)
    assert found["success10"] == 0.0


def test_weights_of_an_interval_are_repetitions() -> None:
    """A query of weight 2 is the same as two of its identity."""
    rng = np.random.default_rng(1)
    values, identities, weights = rng.random(40), np.arange(40) // 4, rng.integers(0, 3, 40)
    repeated = np.repeat(np.arange(40), weights)
    expected = interval(values[repeated], identities[repeated], seed=0)
    assert interval(values, identities, seed=0, weights=weights) == pytest.approx(expected)
    alone = interval(values, seed=0, weights=np.ones(40))
    assert alone == pytest.approx(interval(values, seed=0))
    both = np.stack([values, values**2], axis=1)
    together = intervals(both, identities, seed=0, weights=weights)
    assert together[1].tolist() == pytest.approx(list(interval(values**2, identities, seed=0, weights=weights)))


def test_relative_drop() -> None:
    assert relative_drop(80.0, 20.0) == 75.0
    assert relative_drop(50.0, 60.0) == -20.0
    assert relative_drop(0.0, 0.0) is None
