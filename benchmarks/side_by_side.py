"""Timings that hold on a noisy machine: two things in turn, and the ratio of each pair."""

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
"""time.perf_counter; or time.process_time, the work of all cores, which others on the machine disturb less."""


@dataclass(frozen=True)
class Line:
    """One row of the table of benchmarks.

    Attributes:
        topic: which module of this folder asks, such as "ranking".
        what: what was measured, with its sizes.
        against: what it was held against.
        figure: median over the runs.
        low, high: smallest and largest of the runs; equal to `figure` where it was not repeated.
        unit: of the figure: "× the time", "× faster", "GiB", "s", "calls".
        target: what the figure should be, such as "≤ 1.05"; empty where nothing is asked.
        met: whether it is; None where nothing is asked, or where it was not measured.
        runs: how many runs the median is of; 0 where it was not measured.
        note: why it was not measured, or what explains the figure.
    """

    topic: str
    what: str
    against: str
    figure: float
    low: float
    high: float
    unit: str
    target: str = ""
    met: bool | None = None
    runs: int = RUNS
    note: str = ""


def seconds(work: Callable[[], Any], clock: Clock = time.perf_counter) -> float:
    """Time of one call, after which a GPU has finished too: by the wall clock, or by another."""
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
    """Times of `first` over times of `second`, pair by pair: A B, B A, A B …, so that a drift favours neither."""
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
    figures: Sequence[float],
    unit: str,
    target: str = "",
    met: Callable[[float], bool] | None = None,
    note: str = "",
) -> Line:
    """The median of `figures` with their range; `met` judges the median."""
    middle = statistics.median(figures)
    judged = None if met is None else met(middle)
    return Line(topic, what, against, middle, min(figures), max(figures), unit, target, judged, len(figures), note)


def not_measured(topic: str, what: str, against: str, unit: str, target: str, why: str) -> Line:
    nan = float("nan")
    return Line(topic, what, against, nan, nan, nan, unit, target, None, 0, why)


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
