"""Run the steps that are missing from the store. Interrupted runs resume; failures are reported per step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute import processes, schedule
from reid_attack_bench.execute import ray as ray_tasks
from reid_attack_bench.execute.assignment import Assignment
from reid_attack_bench.execute.device import (
    MEMORY_PER_WORKER,
    Devices,
    default_threads,
    default_workers,
    each_of,
    settings_for_a_run,
)
from reid_attack_bench.execute.events import Listener, Outcome, Recorder
from reid_attack_bench.execute.parallel import Pause, Team, run_in_parallel
from reid_attack_bench.execute.runner import Runner
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.steps.step import Step
from reid_attack_bench.store import CorruptArtefact, Store


def missing_steps(plan: Plan, store: Store, also: Iterable[str] = ()) -> list[Step]:
    """Missing steps that the goals, and the keys `also`, need, in order. Inputs of stored results are not needed."""
    wanted: set[str] = set()
    waiting = [key for key in (*plan.goals, *also) if not store.has(plan.steps[key].kind, key)]
    while waiting:
        key = waiting.pop()
        if key in wanted:
            continue
        wanted.add(key)
        needed = schedule.needs(plan.steps[key])
        waiting += [k for k in needed if k not in wanted and not store.has(plan.steps[k].kind, k)]
    return [step for key, step in plan.steps.items() if key in wanted]


# size: settings of a run, named by its callers
def execute(
    plan: Plan,
    store: Store,
    device: Devices,
    listener: Listener | None = None,
    workers: int | None = 1,
    ray: str | None = None,
    threads: int | None = None,
    memory_limit: int | None = None,
) -> Outcome:
    """Run all missing steps of `plan`.

    A failed step fails its dependents only. A run can be killed at any moment; the next one resumes with the unfinished
    steps. Results do not depend on where steps run, since each has the same number of threads. Several runs may use one
    store: each does the steps that no other is doing, and takes the results of the others.

    Args:
        plan: the steps and the goals.
        store: store of the results.
        device: compute device, or several, such as all GPUs of a machine; each worker has one.
        listener: receives the events of the run.
        workers: number of steps at once; at least one for each of several devices. One runs in this process, whose
            settings and random states are restored at the end; more run in their own processes. None for as many as
            cores and memory allow.
        threads: number of threads of torch and OpenCV of each step; None for `device.default_threads`.
        memory_limit: bytes of memory that a step may use, with its process; one that uses more fails. Steps then run in
            worker processes, also if there is one worker.
        ray: address of a Ray cluster that runs the steps, or "local", see `execute.ray`; `workers` is then ignored.

    Raises:
        BenchError: the store cannot be written to, the disk is full, or several workers are not possible here.
    """
    devices = each_of(device)
    outcome = Outcome(threads=threads or default_threads(devices[0]))
    recorder = Recorder(outcome, listener or Listener())
    store.prepare()
    todo = missing_steps(plan, store, repair(plan, store, recorder))
    # started before a listener starts a thread, as progress bars do
    assignment = Assignment(plan, store, devices[0], outcome.threads, memory_limit)
    team = _team(assignment, devices, len(todo), workers, ray)
    recorder.begin(todo, len(plan.steps))
    if not todo:
        return outcome
    with settings_for_a_run(outcome.threads):
        if team is None:
            _run_here(todo, Runner(plan.steps, store, devices[0], recorder), outcome)
        else:
            run_in_parallel(todo, recorder, team, plan.steps, store)
    outcome.failed.update(schedule.behind_gates(plan.steps.values(), outcome.failed))
    return outcome


def _team(
    assignment: Assignment, devices: Sequence[torch.device], steps: int, workers: int | None, ray: str | None
) -> Team | None:
    """Workers for a number of steps; None to run them in this process.

    Raises:
        BenchError: several workers are not possible here.
    """
    if not steps:
        return None
    if ray is not None:
        if assignment.plan.source is None:
            raise BenchError("what exists only in memory cannot be sent to another machine: leave out ray")
        return ray_tasks.start(replace(assignment, device=torch.device(devices[0].type)), ray)
    limit = assignment.memory_limit
    memory = MEMORY_PER_WORKER if limit is None else limit / 2**30
    usual = default_workers(devices[0], assignment.threads, memory)
    asked = max(len(devices), usual if workers is None else workers)
    if limit is None and (asked == 1 or steps == 1):
        return None
    start = processes.worker_starter(assignment.plan, devices)
    if start is not None:
        return processes.LocalTeam([replace(assignment, device=devices[i % len(devices)]) for i in range(asked)], start)
    if limit is not None:
        raise BenchError("a memory limit needs a worker process, which is not possible here: leave it out")
    if workers is None and len(devices) == 1:
        return None
    raise BenchError(
        f"{asked} workers: a program with other threads, or with CUDA in use, cannot fork, and what exists only in "
        "memory cannot be sent to another process: use workers=1 and one device"
    )


def _run_here(todo: list[Step], runner: Runner, outcome: Outcome) -> None:
    queue, pause = schedule.Queue(todo), Pause(runner.listener, runner.store)
    while todo:
        held: dict[str, Step] = {}  # what another run does, and what waits for it
        for step in todo:  # in the order of the plan, which keeps what belongs together in memory
            if step.key in outcome.failed:
                continue
            if not held.keys().isdisjoint(schedule.needs(step)) or not runner.run(step):
                held[step.key] = step
            if step.key in outcome.failed:
                outcome.failed.update(queue.fail(step.key, outcome.failed[step.key]))
        if len(held) == len(todo):
            pause.wait(held.values())
        todo = list(held.values())


def repair(plan: Plan, store: Store, listener: Listener) -> list[str]:
    """Check what is stored of the goals and of all that they are made from; discard what is corrupt.

    Returns:
        Keys of the discarded results.
    """
    wanted = set(plan.goals)
    for key in reversed(list(plan.steps)):
        wanted.update(schedule.needs(plan.steps[key]) if key in wanted else ())
    there = [step for key, step in plan.steps.items() if key in wanted and store.occupied(step.kind, key)]
    store.look_up((step.kind, step.key) for step in there)
    broken = []
    for step in there:
        try:
            store.check(step.kind, step.key)
        except CorruptArtefact as error:
            listener.rebuild(step, f"{step.label}: {error.found}")
            store.discard(step.kind, step.key)
            broken.append(step.key)
    return broken


def seconds_stored(plan: Plan, store: Store) -> Mapping[str, float]:
    """Key → duration in seconds of every stored step."""
    return {
        key: float(store.manifest(step.kind, key).get("seconds", 0.0))
        for key, step in plan.steps.items()
        if store.has(step.kind, key)
    }
