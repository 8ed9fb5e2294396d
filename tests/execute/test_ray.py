"""Steps as Ray tasks."""

from __future__ import annotations

import importlib.util
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute import executor
from reid_attack_bench.execute import ray as tasks
from reid_attack_bench.execute.assignment import Assignment
from reid_attack_bench.execute.events import Listener
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.steps.step import Step
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse
from tests.conftest import TOY, tiny_document
from tests.execute.conftest import results

CPU = torch.device("cpu")

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")


class Heard(Listener):
    def __init__(self) -> None:
        self.started: list[str] = []
        self.notes: list[str] = []
        self.places: set[str] = set()

    def start(self, step: Step) -> None:
        self.started.append(step.key)

    def place(self, step: Step, place: str) -> None:
        self.places.add(place)

    def note(self, text: str) -> None:
        self.notes.append(text)


@needs_ray
@pytest.mark.e2e
def test_one_node_gives_the_same_bytes_and_a_failure_names_it(tmp_path: Path) -> None:
    """As little as shows it: one core, one worker, and a cluster without its other services."""
    import ray

    document = tiny_document()
    del document["datasets"]["station"]
    document["victims"]["toy"]["train_on"] = ["plaza"]
    document["attacks"] = {"noise": {"epsilon": [8]}, "cheat": {"use": f"{TOY}:Cheat", "epsilon": [8]}}
    plan = make_plan(parse.parse(document))
    alone, node, heard = Store(tmp_path / "alone"), Store(tmp_path / "node"), Heard()
    failed = executor.execute(plan, alone, CPU)
    ray.init(
        "local", num_cpus=1, object_store_memory=2**27, include_dashboard=False, log_to_driver=False,
        logging_level="error",
    )  # fmt: skip
    try:
        outcome = executor.execute(plan, node, CPU, heard, ray="auto")
        assert ray.is_initialized(), "it is ours, and goes on"
    finally:
        ray.shutdown()
    assert set(heard.started) == set(outcome.seconds) | {key for key in outcome.failed if key in heard.started}
    assert heard.places == {f"node {socket.gethostname()}"}
    (cause,), (expected,) = outcome.causes, failed.causes
    assert cause == expected.replace(": ", f": node {socket.gethostname()}: ", 1)
    assert set(outcome.failed) == set(failed.failed)
    assert results(plan, node) == results(plan, alone)


def test_a_run_does_not_wait_for_ever_for_a_node_that_is_large_enough(small_plan: Plan) -> None:
    def team(memory_limit: int | None, **resources: float) -> tasks.RayTeam:
        assignment = Assignment(small_plan, Store(Path("store")), CPU, threads=2, memory_limit=memory_limit)
        return tasks.RayTeam(Ray(**resources), assignment)

    team(None, CPU=2, memory=2.0**30).check_room(patience=0.0)  # a small node has what it has
    team(2**33, CPU=2, memory=2.0**33).check_room(patience=0.0)
    with pytest.raises(BenchError, match=r"2 cores and 16.0 GiB of a step \(there: 2 cores and 8.0 GiB\): add a node"):
        team(2**34, CPU=2, memory=2.0**33).check_room(patience=0.0)
    short = team(None, CPU=1, memory=2.0**33)
    short.check_room()
    short._had_room -= 121
    with pytest.raises(BenchError, match=r"has the 2 cores and 3.0 GiB of a step \(there: 1 cores"):
        short.check_room()


@needs_ray
@pytest.mark.slow
def test_a_step_whose_worker_died_is_run_again(
    small_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, cluster, heard = Store(tmp_path / "alone"), Store(tmp_path / "cluster"), Heard()
    assert executor.execute(small_plan, alone, CPU).causes == []
    monkeypatch.setenv("TOY_DIES", str(tmp_path))
    (tmp_path / "fit").touch()  # the toy's fit kills its process, once
    outcome = executor.execute(small_plan, cluster, CPU, heard, ray="local")
    assert outcome.causes == []
    assert set(heard.started) == set(small_plan.steps)
    assert [note.startswith("a worker or node was lost") and "fit learner" in note for note in heard.notes] == [True]
    assert results(small_plan, cluster) == results(small_plan, alone)


def test_what_exists_only_in_memory_is_no_task(small_plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="what exists only in memory cannot be sent to another machine"):
        executor.execute(replace(small_plan, source=None), Store(tmp_path), CPU, ray="local")


class Ray:
    """Stands in for Ray: tasks never end, and `resources` are those of its cluster."""

    def __init__(self, **resources: float) -> None:
        self.resources, self.given = resources, list[dict[str, Any]]()
        self.util = self.scheduling_strategies = self
        self.exceptions = None

    def NodeAffinitySchedulingStrategy(self, node: str, soft: bool) -> None:  # noqa: N802  as in Ray
        assert (node, soft) == ("here", False)

    def get_runtime_context(self) -> Ray:
        return self

    def get_node_id(self) -> str:
        return "here"

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"Alive": True, "Resources": self.resources},
            {"Alive": False, "Resources": {"CPU": 99, "memory": 1e15}},
        ]

    def put(self, value: object) -> object:
        return value

    def remote(self, *given: object, **named: object) -> Any:
        return self if not given or given[0] is tasks._Mailbox else object()

    def __call__(self, function: object) -> Ray:
        return self

    def options(self, **options: Any) -> Ray:
        self.given.append(options)
        return self


def filled(ray: Ray, plan: Plan, device: str, kinds: list[str]) -> int:
    """Number of steps of these kinds that run at once."""
    team = tasks.RayTeam(ray, Assignment(plan, Store(Path("store")), torch.device(device), threads=2))
    count = 0
    for kind in kinds:
        worker = team.idle()
        if worker is None:
            break
        worker.begin(Step(kind, 1, "x"))
        team.give(worker, worker.step)
        count += 1
    return count


def test_as_many_tasks_run_as_the_cluster_has_room_for(small_plan: Plan) -> None:
    gib = 2.0**30
    assert filled(Ray(CPU=8, memory=100 * gib), small_plan, "cpu", ["craft"] * 9) == 4, "two cores each"
    assert filled(Ray(CPU=8, memory=7 * gib), small_plan, "cpu", ["craft"] * 9) == 2, "three GiB each"
    assert filled(Ray(CPU=1, memory=1 * gib), small_plan, "cpu", ["craft"] * 9) == 1, "one always runs"
    assert filled(Ray(CPU=64, memory=100 * gib, GPU=2), small_plan, "cuda", ["craft"] * 9) == 2
    assert filled(Ray(CPU=64, memory=100 * gib, GPU=2), small_plan, "cuda", ["features"] * 9) == 4, "two on each GPU"
    ray = Ray(CPU=64, memory=100 * gib, GPU=1)
    assert filled(ray, small_plan, "cuda", ["rank"]) == 1
    assert {"num_cpus": 2, "num_gpus": 0.25, "memory": 3 * 2**30}.items() <= ray.given[-1].items()
