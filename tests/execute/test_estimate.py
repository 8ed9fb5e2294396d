"""Calculated times: rates of stored steps, and the schedule on a number of workers."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_attack_bench.execute.estimate import CPU_RATES, GPU_RATE, estimate, simulate
from reid_attack_bench.execute.schedule import needs, work_behind
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.steps.kinds import KINDS
from reid_attack_bench.steps.step import Step
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse
from tests.conftest import TOY, tiny_document

QUICK = Path(__file__).parents[2] / "results/quick/manifest.json"


def published() -> dict[tuple[str, str], float]:
    """(kind, label) → seconds of the published quick run, on one thread of a CPU."""
    return {(step["kind"], step["label"]): step["seconds"] for step in json.loads(QUICK.read_text())["steps"]}


def bound(steps: list[Step], seconds: dict[str, float], workers: int) -> float:
    """No schedule is shorter: the longest chain, and the work shared out evenly."""
    return max(*work_behind(steps, seconds).values(), sum(seconds.values()) / workers)


@pytest.mark.e2e
def test_20_attacks_by_30_by_30_keep_16_workers_busy() -> None:
    document = tiny_document()
    recipe = {"use": f"{TOY}:ToyRecipe", "train_on": ["plaza"]}
    document["victims"] = {f"toy{i}": {**recipe, "options": {"seed": i}} for i in range(30)}
    document["attacks"] = {f"pgd{i}": {"use": "pgd", "options": {"steps": i + 1}, "epsilon": [8]} for i in range(20)}
    del document["datasets"]["station"]
    steps = list(make_plan(parse.parse(document)).steps.values())
    times, draw, seconds = defaultdict(list), random.Random(0), {}
    for (kind, _), duration in published().items():
        times[kind].append(duration)
    for step in steps:
        seconds[step.key] = draw.choice(times[step.kind])
    duration = simulate(steps, seconds, 16)
    assert sum(seconds.values()) / duration >= 0.9 * 16
    assert duration == pytest.approx(bound(steps, seconds, 16), rel=0.1)


def test_the_published_quick_run_is_scheduled_close_to_its_bound() -> None:
    """With 16 workers that is its longest chain, far from linear: train, fit, craft, embed, rank."""
    times = published()
    steps = list(make_plan(parse.load("quick")).steps.values())
    seconds = {step.key: times[step.kind, step.label] for step in steps}
    assert simulate(steps, seconds, 1) == pytest.approx(sum(seconds.values()))
    for workers in (2, 4, 16):
        duration = simulate(steps, seconds, workers)
        assert bound(steps, seconds, workers) <= duration * 1.000001
        assert duration < 1.15 * bound(steps, seconds, workers)


@given(st.data())
def test_no_schedule_beats_its_bounds_or_twice_them(data: st.DataObject) -> None:
    steps: list[Step] = []
    for i in range(data.draw(st.integers(1, 15))):
        parents = data.draw(st.lists(st.sampled_from(steps), max_size=3, unique_by=id)) if steps else []
        steps.append(Step("data", 1, str(i), {"n": i}, parents={str(n): p for n, p in enumerate(parents)}))
    seconds = {step.key: data.draw(st.floats(0.1, 100)) for step in steps}
    workers = data.draw(st.integers(1, 5))
    duration = simulate(steps, seconds, workers)
    assert bound(steps, seconds, workers) <= duration * 1.000001
    chain = max(work_behind(steps, seconds).values())
    assert duration <= (chain + sum(seconds.values()) / workers) * 1.000001, "Graham's bound of a list schedule"
    assert all(key in seconds for step in steps for key in needs(step))


def stored(store: Store, step: Step, seconds: float, **about: str) -> None:
    with store.write(step.kind, step.key, {"kind": step.kind, "seconds": seconds, "facts": {}, **about}):
        pass


def test_rates_are_those_of_stored_steps_of_the_victim_or_the_kind(small_plan: Plan, tmp_path: Path) -> None:
    store, steps = Store(tmp_path), list(small_plan.steps.values())
    by_kind = {step.kind: step for step in steps}
    nothing = estimate(small_plan, steps, store, "cpu")
    assert nothing.measured == 0
    assert "published quick run" in nothing.origin
    assert nothing.seconds[by_kind["rank"].key] == CPU_RATES["rank"]
    victim, craft = by_kind["victim"], by_kind["craft"]
    stored(store, victim, 3.0)
    stored(store, craft, 7.0, device="cuda")
    on_cpu, on_gpu = (estimate(small_plan, steps, store, device) for device in ("cpu", "cuda"))
    assert (on_cpu.measured, on_cpu.seconds[victim.key]) == (1, pytest.approx(3.0))
    assert on_gpu.seconds[craft.key] == pytest.approx(7.0)
    crafts = [step for step in steps if step.kind == "craft"]
    assert on_gpu.measured == len(crafts) > 1, "the other is of the same kind"
    assert on_gpu.seconds[victim.key] == GPU_RATE * victim.work
    assert "not measured on a GPU" in on_gpu.origin


def test_every_kind_has_a_published_rate() -> None:
    assert set(CPU_RATES) == set(KINDS)
