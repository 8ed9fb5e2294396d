"""Run steps in parallel worker processes and report their progress.

There are two kinds of workers. A forked worker inherits the plan with live objects. A spawned worker is a new Python
process that receives text only and plans the suite again; it is used if a fork is not safe.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cv2
import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute import schedule
from reid_attack_bench.execute.device import keep_freed_memory, stop_threads, use_deterministic_kernels
from reid_attack_bench.execute.events import Listener, Recorder
from reid_attack_bench.execute.runner import Runner
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.steps.step import Step
from reid_attack_bench.store import Store
from reid_attack_bench.suites.parse import from_json, to_json

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_SECONDS_TO_EXIT = 10.0


@dataclass(frozen=True)
class Job:
    """Settings shared by all workers of a run.

    Attributes:
        plan: plan of the run.
        store: store of the results.
        device: compute device.
        threads: number of threads of torch and OpenCV in each worker.
    """

    plan: Plan
    store: Store
    device: torch.device
    threads: int


@dataclass
class Worker:
    """A worker process, its pipe, and the step it is running."""

    process: BaseProcess | subprocess.Popen[bytes]
    pipe: Connection
    step: Step | None = None

    def exit_status(self) -> int | None:
        """Exit status of a process that is about to end; negative for the signal that ended it."""
        if isinstance(self.process, subprocess.Popen):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_SECONDS_TO_EXIT)
            return self.process.returncode
        self.process.join(_SECONDS_TO_EXIT)
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()
        self.exit_status()
        self.pipe.close()


def worker_starter(plan: Plan) -> Callable[[Job], Worker] | None:
    """Method to start workers for `plan` from this thread: `fork`, `spawn`, or None if neither is possible.

    A fork is safe on Linux while no other thread runs and CUDA is not in use.
    """
    alone = threading.active_count() == 1 and not torch.cuda.is_initialized()
    if sys.platform == "linux" and alone and stop_threads():
        return fork
    return None if plan.source is None else spawn


def run_in_parallel(
    todo: Sequence[Step], recorder: Recorder, workers: int, start: Callable[[], Worker], steps: Mapping[str, Step]
) -> None:
    """Run the steps `todo` in up to `workers` processes, each when the steps it needs are done.

    Among the steps that can start, the one on the longest path goes first. A step fails if its process dies. The worker
    processes end when this process ends, for any reason.

    Args:
        todo: steps in an order that satisfies their needs; needs that are not among them are stored.
        recorder: receives all events, in this process.
        workers: maximum number of processes, started on demand.
        start: starts one process.
        steps: key → step, for all steps that may be run, including inputs that turn out corrupt.

    Raises:
        BenchError: no further step can succeed, e.g. because the disk is full.
    """
    waiting = schedule.by_work_behind(todo)
    unfinished = {step.key for step in todo}
    team: list[Worker] = []
    try:
        while True:
            _hand_out(waiting, unfinished, team, workers, start)
            busy = {worker.pipe: worker for worker in team if worker.step is not None}
            if not busy:
                return
            for pipe in multiprocessing.connection.wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                if _receive(worker, recorder, steps):
                    continue
                step, worker.step = worker.step, None
                assert step is not None
                unfinished.discard(step.key)
                if worker.pipe.closed:
                    team.remove(worker)
                if step.key in recorder.outcome.failed:
                    reasons = schedule.blocked(waiting, recorder.outcome.failed)
                    recorder.outcome.failed.update(reasons)
                    unfinished.difference_update(reasons)
                    waiting = [other for other in waiting if other.key not in reasons]
    finally:
        for worker in team:
            worker.kill()


def _hand_out(
    waiting: list[Step], unfinished: set[str], team: list[Worker], workers: int, start: Callable[[], Worker]
) -> None:
    """Give each idle worker a step that can start; start another worker if such steps remain."""
    idle = [worker for worker in team if worker.step is None]
    while idle or len(team) < workers:
        step = schedule.next_step(waiting, unfinished)
        if step is None:
            return
        if not idle:
            team.append(start())
            idle.append(team[-1])
        worker = idle.pop(0)
        with contextlib.suppress(BrokenPipeError):  # it died while idle: detected when its answer is received
            worker.pipe.send(step.key)
        worker.step = step
        waiting.remove(step)


def _receive(worker: Worker, recorder: Recorder, steps: Mapping[str, Step]) -> bool:
    """Process one message of a worker; returns whether it is still running its step."""
    try:
        message = worker.pipe.recv()
    except (EOFError, OSError):  # OSError also if it died in the middle of a message
        assert worker.step is not None
        status = worker.exit_status()
        recorder.fail(worker.step, f"its process died with exit status {status}: out of memory?")
        worker.kill()
        return False
    match message:
        case ("start", key):
            recorder.start(steps[key])
        case ("progress", key, done, total, note):
            recorder.progress(steps[key], done, total, note)
        case ("finish", key, seconds):
            recorder.finish(steps[key], seconds)
        case ("fail", key, reason):
            recorder.fail(steps[key], reason)
        case ("rebuild", key, reason):
            recorder.rebuild(steps[key], reason)
        case ("note", text):
            recorder.note(text)
        case ("fatal", reason):
            raise BenchError(reason)
        case ("idle",):
            return False
    return True


class _PipeListener(Listener):
    """Sends events through a pipe, steps by key."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def start(self, step: Step) -> None:
        self._pipe.send(("start", step.key))

    def progress(self, step: Step, done: int, total: int, note: str) -> None:
        self._pipe.send(("progress", step.key, done, total, note))

    def finish(self, step: Step, seconds: float) -> None:
        self._pipe.send(("finish", step.key, seconds))

    def fail(self, step: Step, reason: str) -> None:
        self._pipe.send(("fail", step.key, reason))

    def rebuild(self, step: Step, reason: str) -> None:
        self._pipe.send(("rebuild", step.key, reason))

    def note(self, text: str) -> None:
        self._pipe.send(("note", text))


def fork(job: Job) -> Worker:
    """Start a forked worker, which has the plan of this process."""
    stop_threads()
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    process = context.Process(target=_forked, args=(there, job, os.getpid()), daemon=True)
    process.start()
    there.close()
    return Worker(process, here)


def _forked(pipe: Connection, job: Job, parent: int) -> None:
    _end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    _work(pipe, job)


_SPAWNED = """\
import json, sys
sys.path[:] = json.loads(sys.argv[3])
from reid_attack_bench.execute.processes import spawned_main
spawned_main(int(sys.argv[1]), int(sys.argv[2]))
"""


def spawn(job: Job) -> Worker:
    """Start a worker in a new Python process, which plans the run of `job` again.

    The process does not import the main module, so scripts and notebooks need no `__main__` guard.
    """
    here, there = multiprocessing.Pipe()
    arguments = [sys.executable, "-c", _SPAWNED, str(there.fileno()), str(os.getpid()), json.dumps(sys.path)]
    # in a new session it does not receive Ctrl-C from the terminal; the parent handles it
    process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, pass_fds=[there.fileno()], start_new_session=True)
    there.close()
    with contextlib.suppress(BrokenPipeError):  # it died at once: detected when its answer is received
        here.send(_as_text(job))
    return Worker(process, here)


def spawned_main(handle: int, parent: int) -> None:
    """Entry point of a spawned worker: `handle` is its end of the pipe, `parent` the pid of its parent."""
    _end_with(parent)
    pipe = Connection(handle)
    try:
        job = _from_text(pipe.recv())
    except Exception as error:  # the constructor of a plug-in may raise anything
        pipe.send(("fatal", f"a worker process cannot plan this run again ({error}): use one worker"))
        return
    use_deterministic_kernels()
    keep_freed_memory()
    _work(pipe, job)


def _as_text(job: Job) -> str:
    source = job.plan.source
    assert source is not None
    values: dict[str, Any] = {
        "suite": to_json(job.plan.suite),
        "data_root": source.data_root and str(source.data_root),
        "only": {field: list(values) for field, values in source.only.items()},
        "remember": source.remember and str(source.remember),
        "store": str(job.store.root),
        "device": str(job.device),
        "threads": job.threads,
    }
    return json.dumps(values)


def _from_text(text: str) -> Job:
    values = json.loads(text)
    data_root, remember = (Path(values[name]) if values[name] else None for name in ("data_root", "remember"))
    plan = make_plan(from_json(values["suite"]), data_root=data_root, only=values["only"], remember=remember)
    return Job(plan, Store(Path(values["store"])), torch.device(values["device"]), values["threads"])


def _work(pipe: Connection, job: Job) -> None:
    """Run the steps whose keys are received, until the parent ends this process."""
    torch.set_num_threads(job.threads)
    cv2.setNumThreads(job.threads)
    runner = Runner(job.plan.steps, job.store, job.device, _PipeListener(pipe))
    while True:
        try:
            key = pipe.recv()
        except EOFError:  # the parent ended
            return
        if key not in job.plan.steps:
            pipe.send(("fatal", "the suite or a plug-in file changed while it ran: run the same command again"))
            return
        try:
            runner.run(job.plan.steps[key])
        except BenchError as error:
            pipe.send(("fatal", str(error)))
        pipe.send(("idle",))


def _end_with(parent: int) -> None:
    """End this process when process `parent` ends, for any reason."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # the parent ended before prctl
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
