"""Timings for noisy machines: two functions in turn, and the ratio of each pair."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

RUNS = 5
Clock = Callable[[], float]
"""time.perf_counter, or time.process_time (all cores), which other processes disturb less."""


@dataclass(frozen=True)
class Line:
    """One row of the benchmark table.

    Attributes:
        topic: module of this folder, such as "ranking".
        what: what was measured, with its sizes.
        against: what it was compared with.
        value: median over the runs.
        low, high: smallest and largest of the runs; equal to `value` for a single run.
        unit: unit of the value: "× the time", "× faster", "GiB", "s", "calls".
        target: required value, such as "≤ 1.05"; empty if there is none.
        met: whether the target is met; None without a target or measurement.
        runs: number of runs; 0 if not measured.
        note: why it was not measured, or an explanation of the value.
    """

    topic: str
    what: str
    against: str
    value: float
    low: float
    high: float
    unit: str
    target: str = ""
    met: bool | None = None
    runs: int = RUNS
    note: str = ""


def seconds(work: Callable[[], Any], clock: Clock = time.perf_counter) -> float:
    """Duration of one call in seconds by `clock`, including the work that it starts on a GPU."""
    _finish()
    begun = clock()
    work()
    _finish()
    return clock() - begun


def in_turn(
    first: Callable[[], Any],
    second: Callable[[], Any],
    runs: int = RUNS,
    warm_up: int = 1,
    clock: Clock = time.perf_counter,
) -> list[float]:
    """Ratios of the times of `first` and `second`, measured as A B, B A, A B … so that a drift favours neither."""
    for _ in range(warm_up):
        first()
        second()
    ratios = []
    for run in range(runs):
        gc.collect()
        if run % 2:
            below, above = seconds(second, clock), seconds(first, clock)
        else:
            above, below = seconds(first, clock), seconds(second, clock)
        ratios.append(above / below)
    return ratios


def line(
    topic: str,
    what: str,
    against: str,
    values: Sequence[float],
    unit: str,
    target: str = "",
    met: Callable[[float], bool] | None = None,
    note: str = "",
) -> Line:
    """The median of `values` with their range; `met` is applied to the median."""
    median = statistics.median(values)
    is_met = None if met is None else met(median)
    return Line(topic, what, against, median, min(values), max(values), unit, target, is_met, len(values), note)


def not_measured(topic: str, what: str, against: str, unit: str, target: str, why: str) -> Line:
    nan = float("nan")
    return Line(topic, what, against, nan, nan, nan, unit, target, None, 0, why)


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
