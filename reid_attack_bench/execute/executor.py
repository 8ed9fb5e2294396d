"""Carry out a plan: only what the store lacks, resumable at any step, honest about what failed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute import processes as lanes
from reid_attack_bench.execute.device import keep_freed_memory, use_deterministic_kernels
from reid_attack_bench.execute.events import Listener, Outcome, Recorder
from reid_attack_bench.execute.runner import Runner
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.steps.step import Step
from reid_attack_bench.store import CorruptArtefact, Store


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


def execute(plan: Plan, store: Store, device: torch.device, listener: Listener, workers: int = 1) -> Outcome:
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
            use_deterministic_kernels()
            keep_freed_memory()
        listener.begin(todo, len(plan.steps))
        outcome = Outcome()
        record = Recorder(outcome, listener)
        if workers > 1 and len(todo) > 1:
            threads = max(1, len(os.sched_getaffinity(0)) // workers)
            lanes.run_in_parallel(
                todo, record, min(workers, len(todo)), lambda teller: Runner(plan, store, device, teller).run, threads
            )
        else:
            runner = Runner(plan, store, device, record)
            for step in todo:
                if not record.blocked(step):
                    runner.run(step)
        return outcome


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


def seconds_stored(plan: Plan, store: Store) -> Mapping[str, float]:
    """Time that each stored step took when it was done."""
    return {
        key: float(store.manifest(step.kind, key).get("seconds", 0.0))
        for key, step in plan.steps.items()
        if store.has(step.kind, key)
    }
