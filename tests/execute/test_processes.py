"""Steps in worker processes, forked or spawned."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute import executor, processes
from reid_attack_bench.execute.assignment import Assignment, as_text, from_text
from reid_attack_bench.execute.events import Listener, Outcome
from reid_attack_bench.execute.runner import Runner
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.steps.step import Step
from reid_attack_bench.store import Store
from tests.conftest import tiny_document
from tests.execute.conftest import results

CPU = torch.device("cpu")

run = Runner.run


@pytest.fixture
def other_thread() -> Iterator[None]:
    """Another thread runs, as in a notebook, so that a fork is not safe."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    yield
    end.set()
    thread.join()


@pytest.mark.e2e
@pytest.mark.usefixtures("other_thread")
def test_spawned_workers_give_the_same_bytes_and_a_killed_one_fails_its_step_only(
    small_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, spawned = Store(tmp_path / "alone"), Store(tmp_path / "spawned")
    assert executor.execute(small_plan, alone, CPU).causes == []
    assert processes.worker_starter(small_plan, [CPU]) is processes.spawn
    monkeypatch.setenv("TOY_DIES", str(tmp_path))
    (tmp_path / "fit").touch()
    outcome = executor.execute(small_plan, spawned, CPU, workers=2)
    assert outcome.threads == 1
    assert len(outcome.causes) == 1
    assert "fit learner 8/255" in outcome.causes[0]
    assert "died with exit status -9" in outcome.causes[0]
    assert {"learner" in small_plan.steps[key].label for key in outcome.failed} == {True}
    assert executor.execute(small_plan, spawned, CPU, workers=2).causes == []
    assert results(small_plan, spawned) == results(small_plan, alone)


def test_a_plan_survives_as_text(small_plan: Plan, tmp_path: Path) -> None:
    job = Assignment(small_plan, Store(tmp_path), CPU, threads=3)
    again = from_text(as_text(job))
    assert list(again.plan.steps) == list(small_plan.steps)
    assert again.plan.cells == small_plan.cells
    assert (again.store, again.device, again.threads) == (job.store, CPU, 3)


@pytest.mark.e2e
@pytest.mark.usefixtures("other_thread")
def test_what_exists_only_in_memory_is_done_by_one_worker(small_plan: Plan, tmp_path: Path) -> None:
    plan = replace(small_plan, source=None)
    with pytest.raises(BenchError, match=r"2 workers: .* use workers=1"):
        executor.execute(plan, Store(tmp_path), CPU, workers=2)
    outcome = executor.execute(plan, Store(tmp_path), CPU, workers=None)
    assert set(outcome.seconds) == set(plan.steps)


@pytest.mark.e2e
@pytest.mark.usefixtures("other_thread")
def test_a_suite_that_cannot_be_planned_again_says_so(small_plan: Plan, tmp_path: Path) -> None:
    (victim,) = small_plan.suite.victims
    suite = replace(small_plan.suite, victims=(replace(victim, use="gone.py:Victim"),))
    with pytest.raises(BenchError, match=r"cannot plan this run again \(.*gone.py.*\): use one worker"):
        executor.execute(replace(small_plan, suite=suite), Store(tmp_path), CPU, workers=2)


@pytest.mark.e2e
def test_one_worker_and_two_give_the_same_bytes_where_torch_has_two_threads(
    small_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(Runner, "run", lambda self, step: seen.append(torch.get_num_threads()) or run(self, step))
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    torch.set_num_threads(2)
    try:
        assert executor.execute(small_plan, one, CPU, workers=1).threads == 1
        assert set(seen) == {1}
        assert executor.execute(small_plan, two, CPU, workers=2).threads == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert results(small_plan, two) == results(small_plan, one)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("", "died with exit status -9 (SIGKILL): out of memory?"),
        ("child", "died with exit status -9 (SIGKILL): out of memory?"),
        ("exit", "ended itself with exit status 0, as a compiled library that calls exit does"),
    ],
)
def test_a_run_ends_where_the_step_that_all_others_need_ends_its_worker(
    small_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, says: str
) -> None:
    monkeypatch.setenv("TOY_DIES", str(tmp_path))
    (tmp_path / "train").write_text(how)
    outcome = executor.execute(small_plan, Store(tmp_path / "store"), CPU, workers=2)
    assert outcome.causes == [f"train toy@plaza: its process {says}"]
    done = {step.kind for key, step in small_plan.steps.items() if key not in outcome.failed}
    assert done == {"data", "craft", "measure"}, "noise needs no victim"


@pytest.mark.e2e
def test_a_worker_makes_a_corrupt_input_again(small_plan: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path)
    executor.execute(small_plan, store, CPU)
    before = results(small_plan, store)
    for step in small_plan.steps.values():
        if step.kind in ("features", "rank"):
            store.discard(step.kind, step.key)
    craft = next(step for step in small_plan.steps.values() if step.kind == "craft")
    (store.folder("craft", craft.key) / "query.npy").write_bytes(b"damaged")
    outcome = executor.execute(small_plan, store, CPU, workers=2)
    assert outcome.causes == []
    assert outcome.rebuilt == [craft.label]
    assert results(small_plan, store) == before


@pytest.mark.e2e
def test_an_interrupted_run_leaves_no_spawned_process(tmp_path: Path) -> None:
    document = tiny_document()
    document["victims"]["toy"]["options"] = {"steps": 1_000_000}
    script = f"""
import json, os, signal, threading
import torch
from pathlib import Path
from reid_attack_bench.execute.events import Listener
from reid_attack_bench.execute.executor import execute
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse
class Print(Listener):
    def start(self, step):
        print(step.kind, flush=True)
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell started in the background
threading.Thread(target=threading.Event().wait, daemon=True).start()
plan = make_plan(parse.parse(json.loads({json.dumps(document)!r})))
execute(plan, Store(Path("store")), torch.device("cpu"), Print(), workers=2)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "victim":
                break
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 2
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
        assert process.returncode != 0
        assert errors.count("KeyboardInterrupt") == 1  # of the run itself, none of its workers
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{child}").exists() for child in children):
            assert time.monotonic() < deadline, "a worker outlived its run"
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()


@pytest.mark.e2e
def test_a_listener_without_methods_hears_of_a_run_in_processes(small_plan: Plan, tmp_path: Path) -> None:
    outcome = executor.execute(small_plan, Store(tmp_path), CPU, Listener(), workers=2)
    assert isinstance(outcome, Outcome)
    assert set(outcome.seconds) == set(small_plan.steps)


@pytest.mark.e2e
def test_each_of_several_devices_has_a_worker_and_the_results_are_those_of_one(
    small_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPUs with numbers stand in for GPUs: torch takes them as devices of their own."""
    started: list[Assignment] = []

    def fork(job: Assignment) -> processes.LocalWorker:
        started.append(job)
        return processes.fork(job)

    devices = [torch.device("cpu", 0), torch.device("cpu", 1)]
    monkeypatch.setattr(processes, "worker_starter", lambda plan, given: fork)
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    assert executor.execute(small_plan, one, CPU).causes == []
    places: set[str] = set()

    class Heard(Listener):
        def place(self, step: Step, place: str) -> None:
            places.add(place)

    outcome = executor.execute(small_plan, two, devices, Heard(), threads=1)
    assert places == {"worker 1", "worker 2"}
    assert outcome.causes == []
    assert [job.device for job in started] == devices
    assert [job.threads for job in started] == [1, 1]
    assert results(small_plan, two) == results(small_plan, one)


def test_gpus_get_spawned_workers_where_the_plan_can_be_made_from_text(small_plan: Plan) -> None:
    gpus = [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert processes.worker_starter(small_plan, gpus) is processes.spawn
    assert processes.worker_starter(replace(small_plan, source=None), gpus) in (processes.fork, None)
