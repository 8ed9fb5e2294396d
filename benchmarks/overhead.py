"""Time that a run spends on a step besides its work: schedule, messages, inputs checked, result stored.

The steps do next to nothing: noise on eight small images. Of two steps that end one after the other on one worker, the
overhead is the time between the two ends less the duration of the second step.
"""

from __future__ import annotations

import itertools
import logging
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.side_by_side import Line, line, not_measured
from benchmarks.small_matrix import VICTIM
from reid_attack_bench.execute.events import Listener
from reid_attack_bench.execute.executor import execute
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.steps.step import Step
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse

TOPIC = "overhead"
ATTACKS = 40
LOCAL, RAY = 30, 100  # milliseconds
_NO_LIMIT = 2**50  # bytes; steps with a limit run in a worker, also if there is one


class _Ends(Listener):
    """When each step ended, and how long it took."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []

    def finish(self, step: Step, seconds: float) -> None:
        self.ends.append((time.perf_counter(), seconds))


def measure() -> Iterator[Line]:
    plan = small_steps(ATTACKS)
    yield _line("in this process", overheads(plan), LOCAL)
    yield _line("in a worker process", overheads(plan, memory_limit=_NO_LIMIT), LOCAL)
    try:
        import ray
    except ModuleNotFoundError:
        yield not_measured(TOPIC, "a step on a Ray node of this machine", "its work", "ms", f"≤ {RAY}", "no Ray here")
        return
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield _line("on a Ray node of this machine", overheads(plan, ray="auto"), RAY)
    finally:
        ray.shutdown()


def small_steps(attacks: int) -> Plan:
    """A craft, a measure, an embedding and a ranking for each attack."""
    sizes = {"train_identities": 2, "test_identities": 4, "images_per_camera": 1, "queries_per_identity": 2}
    document: dict[str, Any] = {
        "name": "overhead",
        "image_size": [64, 32],
        "datasets": {"plaza": sizes},
        "victims": {"toy": {"use": VICTIM, "roles": ["source", "target"]}},
        "attacks": {f"noise{i}": {"use": "noise", "epsilon": 8, "seeds": [i]} for i in range(attacks)},
    }
    plan = make_plan(parse.parse(document))
    return replace(plan, wanted=tuple(key for key, step in plan.steps.items() if step.kind in ("measure", "rank")))


def overheads(plan: Plan, **options: Any) -> list[float]:
    """Milliseconds of each step after the first quarter, which import, plan and load. `options` as in execute."""
    heard = _Ends()
    with tempfile.TemporaryDirectory() as folder:
        outcome = execute(plan, Store(Path(folder)), torch.device("cpu"), heard, workers=1, **options)
    if outcome.causes:
        raise RuntimeError(outcome.causes[0])
    ends = heard.ends[len(heard.ends) // 4 :]
    return [1000 * (end - before - seconds) for (before, _), (end, seconds) in itertools.pairwise(ends)]


def _line(where: str, values: list[float], most: int) -> Line:
    note = f"median, lowest and highest of {len(values)} steps"
    return line(TOPIC, f"a step {where}", "its work", values, "ms", f"≤ {most}", lambda ms: ms <= most, note=note)
