"""What a step costs besides its work."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.overhead import LOCAL, overheads, small_steps


@pytest.mark.e2e
def test_a_step_in_a_worker_costs_milliseconds() -> None:
    values = overheads(small_steps(6), memory_limit=2**50)
    assert len(values) > 12
    assert 0 < statistics.median(values) < LOCAL, "3 ms on two loaded cores"
