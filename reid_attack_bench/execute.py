"""Carry out a plan: only what the store lacks, resumable at any step, honest about what failed."""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import shutil
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from reid_attack_bench import lanes, steps
from reid_attack_bench.errors import BenchError
from reid_attack_bench.plan import Plan, Step
from reid_attack_bench.store import CorruptArtefact, Store


class Watcher(Protocol):
    """Who is told how a run goes; see console.py."""

    def begin(self, missing: list[Step], total: int) -> None: ...

    def start(self, step: Step) -> None: ...

    def progress(self, step: Step, done: int, total: int, note: str) -> None: ...

    def finish(self, step: Step, seconds: float) -> None: ...

    def fail(self, step: Step, reason: str) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass
class Outcome:
    """How a run went.

    Attributes:
        failed: key → reason, for steps that failed and all that stood on them.
        causes: the reasons that came first, one line each.
        seconds: key → time, for the steps done in this run.
        rebuilt: labels of corrupt artefacts made again.
    """

    failed: dict[str, str] = field(default_factory=dict)
    causes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    rebuilt: list[str] = field(default_factory=list)


def missing_steps(plan: Plan, store: Store) -> list[Step]:
    """What the goals still need, in order: a stored result needs none of its inputs again."""
    wanted: set[str] = set()
    waiting = [key for key in plan.goals if not store.has(plan.steps[key].kind, key)]
    while waiting:
        key = waiting.pop()
        if key in wanted:
            continue
        wanted.add(key)
        step = plan.steps[key]
        needed = (*step.inputs.values(), *step.after)
        waiting += [k for k in needed if k not in wanted and not store.has(plan.steps[k].kind, k)]
    return [step for key, step in plan.steps.items() if key in wanted]


def resolve_device(name: str) -> torch.device:
    """ "auto" takes the GPU where there is one.

    Raises:
        BenchError: cuda was asked for and is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise BenchError("--device cuda: this torch sees no GPU; use --device cpu, or install a CUDA build and driver")
    return torch.device(name)


def default_workers(device: torch.device) -> int:
    """How many steps to do at once: one on a GPU, else a core each as far as 3 GiB of memory each allow, at most 8."""
    if device.type == "cuda":
        return 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return max(1, min(len(os.sched_getaffinity(0)), int(memory / 3), 8))


def execute(plan: Plan, store: Store, device: torch.device, watcher: Watcher, workers: int = 1) -> Outcome:
    """Do every missing step of `plan`, `workers` at a time, each in a process of its own where it is more than one.

    A step that fails fails its dependents and nothing else. Kill it at any moment: the next run takes up at the
    first steps that were not finished. Results do not depend on `workers` as long as each has as many threads.

    Raises:
        BenchError: the store is in use by another run, or the disk is full.
    """
    with _locked(store):
        store.sweep()
        todo = missing_steps(plan, store)
        if todo:  # importing what these take is half of a run that has nothing to do
            steps.use_deterministic_kernels()
            steps.keep_freed_memory()
        watcher.begin(todo, len(plan.steps))
        outcome = Outcome()
        record = _Record(outcome, watcher)
        if workers > 1 and len(todo) > 1:
            threads = max(1, len(os.sched_getaffinity(0)) // workers)
            lanes.run_in_parallel(
                todo, record, min(workers, len(todo)), lambda teller: _Runner(plan, store, device, teller).run, threads
            )
        else:
            runner = _Runner(plan, store, device, record)
            for step in todo:
                if not record.blocked(step):
                    runner.run(step)
        return outcome


@dataclass
class _Record:
    """Takes what happens into the outcome, and passes it on to the watcher."""

    outcome: Outcome
    watcher: Watcher

    def blocked(self, step: Step) -> bool:
        """Whether something that `step` stands on has failed; then so has it, for the same reason."""
        for key in (*step.inputs.values(), *step.after):
            if key in self.outcome.failed:
                self.outcome.failed[step.key] = self.outcome.failed[key]
                return True
        return False

    def start(self, step: Step) -> None:
        self.watcher.start(step)

    def progress(self, step: Step, done: int, total: int, note: str) -> None:
        self.watcher.progress(step, done, total, note)

    def finish(self, step: Step, seconds: float) -> None:
        self.outcome.seconds[step.key] = seconds
        self.watcher.finish(step, seconds)

    def fail(self, step: Step, reason: str) -> None:
        line = " ".join(reason.split())
        self.outcome.failed[step.key] = line
        self.outcome.causes.append(f"{step.label}: {line}")
        self.watcher.fail(step, line)

    def rebuild(self, step: Step, reason: str) -> None:
        self.outcome.rebuilt.append(step.label)
        self.watcher.note(f"{reason}; making it again")

    def note(self, step: Step, text: str) -> None:
        self.watcher.note(text)


class _Runner:
    """Does one step after the other, and keeps what several of them read."""

    def __init__(self, plan: Plan, store: Store, device: torch.device, teller: lanes.Teller) -> None:
        self.plan, self.store, self.teller = plan, store, teller
        self.checked: set[str] = set()
        self.under_way: Step | None = None
        self.workspace = steps.Workspace(self.obtain, plan.steps, device, store.unfinished, self.note)

    def run(self, step: Step) -> None:
        """Do `step` and tell how it went.

        Raises:
            BenchError: the disk is full, so nothing else can be done either.
        """
        try:
            self.do(step)
        except BenchError as error:
            self.teller.fail(step, str(error))
        except torch.cuda.OutOfMemoryError:
            self.teller.fail(
                step, "out of GPU memory: lower the batch of what it trains (batch_identities, batch), or free some"
            )
        except Exception as error:  # a plug-in may raise anything
            if _disk_is_full(error):
                free = shutil.disk_usage(self.store.root).free / 2**20
                raise BenchError(
                    f"the disk of {self.store.root} is full ({free:.0f} MiB free) at step '{step.label}'; what is "
                    "finished is kept: free some space and run the same command again"
                ) from error
            self.teller.fail(step, f"{_where(error)}{type(error).__name__}: {error}")

    def note(self, text: str) -> None:
        assert self.under_way is not None
        self.teller.note(self.under_way, text)

    def do(self, step: Step) -> None:
        for key in step.inputs.values():
            self.obtain(key)
        self.under_way = step
        self.teller.start(step)
        begun = time.monotonic()
        manifest: dict[str, Any] = {
            "kind": step.kind,
            "key": step.key,
            "label": step.label,
            "config": step.config,
            "implementation": step.implementation,
            "inputs": dict(step.inputs),
        }
        with self.store.write(step.kind, step.key, manifest) as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch names operations without a deterministic kernel, again and again
            progress = functools.partial(self.teller.progress, step)
            manifest["facts"] = steps.run(step, self.workspace, folder, progress)
            seconds = time.monotonic() - begun
            manifest["seconds"] = round(seconds, 3)
        self.checked.add(step.key)
        self.teller.finish(step, seconds)

    def obtain(self, key: str) -> Path:
        """The checked folder of a step's result; made again where it is missing or corrupt."""
        step = self.plan.steps[key]
        if key in self.checked:
            return self.store.folder(step.kind, key)
        if self.store.has(step.kind, key):
            try:
                folder = self.store.open(step.kind, key)
                self.checked.add(key)
                return folder
            except CorruptArtefact as error:
                self.teller.rebuild(step, str(error))
                self.store.discard(step.kind, key)
        self.do(step)
        return self.store.folder(step.kind, key)


def repair(plan: Plan, store: Store) -> list[Step]:
    """Check what the report will read and discard what is corrupt; returns the steps to do again."""
    broken = []
    for key in plan.goals:
        step = plan.steps[key]
        if store.has(step.kind, key):
            try:
                store.open(step.kind, key)
            except CorruptArtefact:
                store.discard(step.kind, key)
                broken.append(step)
    return broken


@contextmanager
def _locked(store: Store) -> Iterator[None]:
    try:
        store.root.mkdir(parents=True, exist_ok=True)
        lock = (store.root / "lock").open("a")
    except OSError as error:
        raise BenchError(
            f"cannot write to the store {store.root}: {error.strerror}; choose another with --store"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BenchError(
                f"another run is using the store {store.root}; wait for it, or choose another with --store"
            ) from None
        yield


def _disk_is_full(error: BaseException) -> bool:
    # safetensors raises an error of its own, with the system's words in it
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return full or os.strerror(errno.ENOSPC) in str(error)


def _where(error: BaseException) -> str:
    """FILE:LINE of the innermost frame: where to look first."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}: " if frames else ""


def seconds_stored(plan: Plan, store: Store) -> Mapping[str, float]:
    """Time that each stored step took when it was done."""
    return {
        key: float(store.manifest(step.kind, key).get("seconds", 0.0))
        for key, step in plan.steps.items()
        if store.has(step.kind, key)
    }
