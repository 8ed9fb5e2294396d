"""The price of a matrix, against a plan of the bench and a count by hand."""

from __future__ import annotations

import pytest

from benchmarks import small_matrix
from benchmarks.growth import Matrix
from benchmarks.ranking import Size


def test_the_price_of_a_matrix_is_its_passes_over_their_rates() -> None:
    matrix = Matrix(Size("", 10, 30, 5, 0, 2), attacks=2, sources=3, targets=4, steps=7)
    backward = forward = rankings = 0
    for _attack in range(2):
        for _source in range(3):
            backward += 7 * 10
            for _target in range(4):
                forward += 10
                rankings += 1
    forward, rankings = forward + 4 * (10 + 30), rankings + 4
    assert (matrix.backward, matrix.forward, matrix.rankings) == (backward, forward, rankings)
    assert matrix.hours(2.0, 1.0, 3.0) == pytest.approx((forward / 2 + backward + 3 * rankings) / 3600)


def test_a_plan_has_as_many_steps_as_the_price_counts() -> None:
    kinds = [step.kind for step in small_matrix.plan_of(sources=2, targets=3).steps.values()]
    assert kinds.count("craft") == kinds.count("measure") == 2
    assert kinds.count("features") == kinds.count("rank") == 2 * 3
    assert kinds.count("clean") == kinds.count("clean-rank") == 3
