"""Several runs on one store: each step is done once, and the results are those of one run."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from reid_attack_bench.execute import executor, parallel
from reid_attack_bench.execute.events import Listener, Outcome, Recorder
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.steps.step import Step
from reid_attack_bench.store import Store
from tests.execute.conftest import results

pytestmark = pytest.mark.e2e

CPU = torch.device("cpu")

RUN = """
import sys, time, torch
from pathlib import Path
from reid_attack_bench.execute.events import Listener
from reid_attack_bench.execute.executor import execute
from reid_attack_bench.store import Store
from tests.execute.conftest import small
class Print(Listener):
    def finish(self, step, seconds):
        print("did", step.key)
    def found(self, step):
        print("found", step.key)
plan, root = small(), Path(sys.argv[1])
Path(f"{root}.{sys.argv[2]}").touch()
while not Path(f"{root}.go").exists():
    time.sleep(0.001)
outcome = execute(plan, Store(root), torch.device("cpu"), Print(), workers=int(sys.argv[3]))
sys.exit("; ".join(outcome.causes) or 0)
"""


@pytest.mark.parametrize("workers", [(1, 1), (1, 2)])
def test_two_runs_share_the_work(small_plan: Plan, tmp_path: Path, workers: tuple[int, int]) -> None:
    shared, alone = Store(tmp_path / "shared"), Store(tmp_path / "alone")
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, str(shared.root), str(name), str(count)],
            cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True,
        )
        for name, count in enumerate(workers)
    ]  # fmt: skip
    while not all(Path(f"{shared.root}.{name}").exists() for name in range(2)):
        assert all(run.poll() is None for run in runs)
        time.sleep(0.01)
    Path(f"{shared.root}.go").touch()
    said = [run.communicate()[0].split("\n") for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    did = Counter(line.removeprefix("did ") for lines in said for line in lines if line.startswith("did "))
    assert did == Counter(list(small_plan.steps)), "each step once"
    executor.execute(small_plan, alone, CPU)
    assert results(small_plan, shared) == results(small_plan, alone)


class Elsewhere(Listener):
    """Has another machine do the first step, and finish it when this run waits for it."""

    def __init__(self, store: Store, done: Store) -> None:
        self.store, self.done = store, done
        self.found_steps: list[Step] = []
        self.notes: list[str] = []

    def found(self, step: Step) -> None:
        self.found_steps.append(step)

    def note(self, text: str) -> None:
        self.notes.append(text)
        if "another run" in text:
            (claim,) = [path for path in (self.store.root / "claims").iterdir() if path.name[0] != "."]
            (self.done.folder("data", claim.name)).rename(self.store.folder("data", claim.name))
            claim.unlink()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_another_machine_does_is_waited_for_and_taken(
    small_plan: Plan, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, done = Store(tmp_path / "store"), Store(tmp_path / "done")
    data = next(step for step in small_plan.steps.values() if step.kind == "data")
    executor.execute(small_plan, done, CPU)
    before = results(small_plan, done)
    store.prepare()
    (store.root / "data").mkdir()
    (store.root / "claims" / data.key).write_text("node7-0.123.456 token")
    monkeypatch.setattr(parallel, "AGAIN", 0.01)
    listener = Elsewhere(store, done)
    outcome = executor.execute(small_plan, store, CPU, listener, workers=workers)
    assert outcome.causes == []
    assert [step.key for step in listener.found_steps] == [data.key]
    assert set(outcome.seconds) == small_plan.steps.keys() - {data.key}
    assert len([note for note in listener.notes if "another run on this store (process 123 on node7)" in note]) == 1
    assert results(small_plan, store) == before


class Losing(parallel.Team):
    """A worker on another machine that is lost with its first step; the next one does it."""

    def __init__(self, store: Store) -> None:
        self.claims, self.worker, self.given = store.root / "claims", parallel.Worker(), 0

    def idle(self) -> parallel.Worker | None:
        return None if self.worker.step else self.worker

    def give(self, worker: parallel.Worker, step: Step) -> None:
        self.given += 1
        if self.given == 1:
            (self.claims / step.key).write_text("node7-0.123.456 token")
        assert len(list(self.claims.iterdir())) == (self.given == 1), "its claim is no longer in the way"

    def busy(self) -> bool:
        return self.worker.step is not None

    def messages(self) -> Iterator[tuple[parallel.Worker, parallel.Message]]:
        yield self.worker, ("lost", "a node was lost") if self.given == 1 else ("idle",)

    def dismiss(self) -> None:
        pass


def test_the_claim_of_a_lost_worker_is_not_waited_for(tmp_path: Path) -> None:
    store, step = Store(tmp_path), Step("data", 1, "a", {})
    store.prepare()
    team = Losing(store)
    parallel.run_in_parallel([step], Recorder(Outcome(), Listener()), team, {step.key: step}, store)
    assert team.given == 2


def test_a_store_needs_no_locks_of_its_file_system(
    small_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> NoReturn:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.setattr(fcntl, "lockf", refused)
    assert executor.execute(small_plan, Store(tmp_path), CPU).causes == []
