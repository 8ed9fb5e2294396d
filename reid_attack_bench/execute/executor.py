"""Run the steps that are missing from the store. Interrupted runs resume; failures are reported per step."""

from __future__ import annotations

from collections.abc import Mapping

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute import processes, schedule
from reid_attack_bench.execute.device import Devices, cpu_count, default_workers, each_of, settings_for_a_run
from reid_attack_bench.execute.events import Listener, Outcome, Recorder
from reid_attack_bench.execute.parallel import run_in_parallel
from reid_attack_bench.execute.runner import Runner
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.steps.step import Step
from reid_attack_bench.store import CorruptArtefact, Store


def missing_steps(plan: Plan, store: Store) -> list[Step]:
    """Missing steps that the goals need, in order. Inputs of stored results are not needed."""
    wanted: set[str] = set()
    waiting = [key for key in plan.goals if not store.has(plan.steps[key].kind, key)]
    while waiting:
        key = waiting.pop()
        if key in wanted:
            continue
        wanted.add(key)
        needed = schedule.needs(plan.steps[key])
        waiting += [k for k in needed if k not in wanted and not store.has(plan.steps[k].kind, k)]
    return [step for key, step in plan.steps.items() if key in wanted]


def execute(
    plan: Plan,
    store: Store,
    device: Devices,
    listener: Listener | None = None,
    workers: int | None = 1,
) -> Outcome:
    """Run all missing steps of `plan`.

    A failed step fails its dependents only. A run can be killed at any moment; the next one resumes with the unfinished
    steps. Results do not depend on `workers` if each worker has the same number of threads.

    Args:
        plan: the steps and the goals.
        store: store of the results.
        device: compute device, or several, such as all GPUs of a machine; each worker has one.
        listener: receives the events of the run.
        workers: number of steps at once; at least one for each of several devices. One runs in this process, whose
            settings and random states are restored at the end; more run in their own processes. None for as many as
            cores and memory allow.

    Raises:
        BenchError: another run uses the store, the disk is full, or several workers are not possible here.
    """
    devices = each_of(device)
    outcome = Outcome()
    recorder = Recorder(outcome, listener or Listener())
    with store.locked():
        store.sweep()
        todo = missing_steps(plan, store)
        asked = max(len(devices), default_workers(devices[0]) if workers is None else workers)
        start = None
        if asked > 1 and len(todo) > 1:
            start = processes.worker_starter(plan, devices)  # before a listener starts a thread, as progress bars do
            if start is None and (workers is not None or len(devices) > 1):
                raise BenchError(
                    f"{asked} workers: a program with other threads, or with CUDA in use, cannot fork, and what exists "
                    "only in memory cannot be sent to another process: use workers=1 and one device"
                )
        recorder.begin(todo, len(plan.steps))
        if not todo:
            return outcome
        with settings_for_a_run():
            if start is None:
                _run_here(todo, Runner(plan.steps, store, devices[0], recorder), outcome)
            else:
                outcome.threads = max(1, cpu_count() // asked)
                jobs = [processes.Job(plan, store, devices[i % len(devices)], outcome.threads) for i in range(asked)]
                run_in_parallel(todo, recorder, processes.LocalTeam(jobs, start), plan.steps)
    outcome.failed.update(schedule.behind_gates(plan.steps.values(), outcome.failed))
    return outcome


def _run_here(todo: list[Step], runner: Runner, outcome: Outcome) -> None:
    queue = schedule.Queue(todo)
    for step in todo:  # in the order of the plan, which keeps what belongs together in memory
        if step.key in outcome.failed:
            continue
        runner.run(step)
        if step.key in outcome.failed:
            outcome.failed.update(queue.fail(step.key, outcome.failed[step.key]))


def repair(plan: Plan, store: Store) -> list[Step]:
    """Check the stored goals and discard corrupt ones; returns their steps."""
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


def seconds_stored(plan: Plan, store: Store) -> Mapping[str, float]:
    """Key → duration in seconds of every stored step."""
    return {
        key: float(store.manifest(step.kind, key).get("seconds", 0.0))
        for key, step in plan.steps.items()
        if store.has(step.kind, key)
    }
