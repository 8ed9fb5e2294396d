"""A small matrix of untrained victims, run by the bench: duration of its steps, memory and number of images."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.memory import in_new_process, peak, resident
from reid_attack_bench.execute.events import Outcome
from reid_attack_bench.execute.executor import execute
from reid_attack_bench.metrics import visibility as image_metrics
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse

VICTIM = f"{Path(__file__).with_name('untrained.py')}:Untrained"
_REPEATED = ("craft", "measure", "features", "rank")
_IDENTITIES = 8  # four queries each


def times(points: Sequence[tuple[int, int]], runs: int) -> list[list[Counter[str]]]:
    """Seconds per kind of step of matrices of (sources, targets), per point and run; the points are run in turn.

    Data and victims are made once; the steps of the cells are repeated in every run.
    """
    found: list[list[Counter[str]]] = [[] for _ in points]
    plans = [plan_of(*point) for point in points]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for plan in plans:
            _execute(plan, store)
        for _ in range(runs):
            for plan, into in zip(plans, found, strict=True):
                for step in plan.steps.values():
                    if step.kind in _REPEATED:
                        store.discard(step.kind, step.key)
                into.append(_by_kind(plan, _execute(plan, store)))
    return found


def counts(sources: int, targets: int) -> dict[str, Any]:
    """One whole run in a new process with the same number of threads.

    Returns:
        crafted, measured: number of adversarial images made and of images measured; gib: peak memory of the run.
    """
    call = f"small_matrix.counts_here({sources}, {targets}, {torch.get_num_threads()})"
    found: dict[str, Any] = in_new_process(call)
    return found


def counts_here(sources: int, targets: int, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    measured: list[int] = []

    def counting(measures: Callable[..., Any]) -> Callable[..., Any]:
        return lambda clean, *rest: measured.append(len(clean)) or measures(clean, *rest)  # type: ignore[func-returns-value]

    plan = plan_of(sources, targets)
    before = resident()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        with mock.patch.object(image_metrics, "measures", counting(image_metrics.measures)):
            _execute(plan, store)
        crafts = [store.open("craft", step.key) for step in plan.steps.values() if step.kind == "craft"]
        crafted = sum(len(np.load(path, mmap_mode="r")) for craft in crafts for path in craft.glob("*.npy"))
    return {"crafted": crafted, "measured": sum(measured), "gib": peak() - before}


def plan_of(sources: int, targets: int) -> Plan:
    def victims(role: str, count: int, first: int) -> dict[str, Any]:
        entry = {"use": VICTIM, "roles": [role]}
        return {f"{role}{i}": {**entry, "options": {"seed": first + i}} for i in range(count)}

    sizes = {"train_identities": 2, "test_identities": _IDENTITIES, "images_per_camera": 1, "queries_per_identity": 4}
    document = {
        "name": "growth",
        "image_size": [128, 64],
        "batch_size": 32,
        "datasets": {"plaza": sizes},
        "victims": {**victims("source", sources, 0), **victims("target", targets, 1000)},
        "attacks": {"pgd": {"epsilon": 8, "options": {"steps": 2}}},
    }
    return make_plan(parse.parse(document))


def _execute(plan: Plan, store: Store) -> Outcome:
    outcome = execute(plan, store, torch.device("cpu"))
    if outcome.causes:
        raise RuntimeError(outcome.causes[0])
    return outcome


def _by_kind(plan: Plan, outcome: Outcome) -> Counter[str]:
    spent: Counter[str] = Counter()
    for key, seconds in outcome.seconds.items():
        spent[plan.steps[key].kind] += seconds  # type: ignore[assignment]
    return spent
