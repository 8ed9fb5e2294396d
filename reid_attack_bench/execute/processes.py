"""Worker processes on this machine.

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute import memory
from reid_attack_bench.execute.assignment import Assignment, as_text, from_text
from reid_attack_bench.execute.device import settings_of_a_worker, stop_threads
from reid_attack_bench.execute.parallel import Message, Sender, Team, Worker
from reid_attack_bench.execute.runner import Runner
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.steps.step import Step

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_SECONDS_TO_EXIT = 10.0
_LOOK = 1.0
"""Seconds without a message after which it is looked whether a worker has ended."""


class LocalWorker(Worker):
    """A worker process and its pipe."""

    def __init__(self, process: BaseProcess | subprocess.Popen[bytes], pipe: Connection) -> None:
        super().__init__()
        self.process, self.pipe = process, pipe

    def receive(self) -> Message:
        """The next message; waits for it."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):  # OSError also if it died in the middle of a message
            return self.died()

    def has_ended(self) -> bool:
        """Whether its process has ended. Its pipe may be held open by a process that a plug-in started."""
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll() is not None
        return self.process.exitcode is not None

    def died(self, reason: str = "") -> Message:
        """The message that its process ended in the middle of a step, or is ended now for a reason."""
        if reason:
            self.kill()
            return ("died", reason)
        status = self._exit_status()
        self.kill()
        if status is not None and status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else "unknown"
            return ("died", f"its process died with exit status {status} ({name}): out of memory?")
        return (
            "died",
            f"its process ended itself with exit status {status}, as a compiled library that calls exit does",
        )

    def _exit_status(self) -> int | None:
        """Exit status of a process that is about to end; negative for the signal that ended it."""
        if isinstance(self.process, subprocess.Popen):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_SECONDS_TO_EXIT)
            return self.process.returncode
        self.process.join(_SECONDS_TO_EXIT)
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()
        self._exit_status()
        self.pipe.close()


class LocalTeam(Team):
    """Processes on this machine, started on demand. They end when this process ends, for any reason.

    Args:
        jobs: what each worker does, and on which device; their number is the largest number of processes.
        start: starts one process.
    """

    def __init__(self, jobs: Sequence[Assignment], start: Callable[[Assignment], LocalWorker]) -> None:
        self._start = start
        self._free = [(_place(job, i), job) for i, job in enumerate(jobs, start=1)][::-1]
        self._workers: dict[LocalWorker, Assignment] = {}
        self._limit, self._looked = jobs[0].memory_limit, time.monotonic()

    def idle(self) -> LocalWorker | None:
        for worker in self._workers:
            if worker.step is None:
                return worker
        if not self._free:
            return None
        place, job = self._free.pop()
        worker = self._start(job)
        worker.place = place
        self._workers[worker] = job
        return worker

    def give(self, worker: Worker, step: Step) -> None:
        assert isinstance(worker, LocalWorker)
        with contextlib.suppress(BrokenPipeError):  # it died while idle: detected when its answer is received
            worker.pipe.send(step.key)

    def busy(self) -> bool:
        return any(worker.step is not None for worker in self._workers)

    def messages(self) -> Iterator[tuple[Worker, Message]]:
        busy = {worker.pipe: worker for worker in self._workers if worker.step is not None}
        ready = multiprocessing.connection.wait(list(busy), timeout=_LOOK if self._limit is None else memory.LOOK)
        told = [(worker, worker.receive()) for pipe, worker in busy.items() if pipe in ready]
        told += [(worker, worker.died()) for worker in busy.values() if not ready and worker.has_ended()]
        told += self._over([worker for pipe, worker in busy.items() if pipe not in ready and not pipe.closed])
        for worker, message in told:
            if message[0] == "died":
                self._free.append((worker.place, self._workers.pop(worker)))
            yield worker, message

    def _over(self, workers: Iterable[LocalWorker]) -> list[tuple[LocalWorker, Message]]:
        """End the workers that are over the memory limit, if it is time to look."""
        if self._limit is None or time.monotonic() < self._looked + memory.LOOK:
            return []
        self._looked = time.monotonic()
        reasons = [(worker, memory.why_over(worker.process.pid or 0, self._limit)) for worker in workers]
        return [(worker, worker.died(reason)) for worker, reason in reasons if reason]

    def dismiss(self) -> None:
        for worker in self._workers:
            worker.kill()


def _place(job: Assignment, number: int) -> str:
    return str(job.device) if job.device.type == "cuda" else f"worker {number}"


def worker_starter(plan: Plan, devices: Sequence[torch.device]) -> Callable[[Assignment], LocalWorker] | None:
    """Method to start workers for `plan` from this thread: `fork`, `spawn`, or None if neither is possible.

    A fork is safe on Linux while no other thread runs and CUDA is not in use. For GPUs it is the last choice: a library
    may have used CUDA without a word.
    """
    if plan.source is not None and any(device.type == "cuda" for device in devices):
        return spawn
    alone = threading.active_count() == 1 and not torch.cuda.is_initialized()
    if sys.platform == "linux" and alone and stop_threads():
        return fork
    return None if plan.source is None else spawn


def fork(job: Assignment) -> LocalWorker:
    """Start a forked worker, which has the plan of this process."""
    stop_threads()
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    process = context.Process(target=_forked, args=(there, job, os.getpid()), daemon=True)
    process.start()
    there.close()
    return LocalWorker(process, here)


def _forked(pipe: Connection, job: Assignment, parent: int) -> None:
    _end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    _work(pipe, job)


_SPAWNED = """\
import json, sys
sys.path[:] = json.loads(sys.argv[3])
from reid_attack_bench.execute.processes import spawned_main
spawned_main(int(sys.argv[1]), int(sys.argv[2]))
"""


def spawn(job: Assignment) -> LocalWorker:
    """Start a worker in a new Python process, which plans the run of `job` again.

    The process does not import the main module, so scripts and notebooks need no `__main__` guard.
    """
    here, there = multiprocessing.Pipe()
    arguments = [sys.executable, "-c", _SPAWNED, str(there.fileno()), str(os.getpid()), json.dumps(sys.path)]
    # in a new session it does not receive Ctrl-C from the terminal; the parent handles it
    process = subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=2, pass_fds=[there.fileno()], start_new_session=True
    )
    there.close()
    with contextlib.suppress(BrokenPipeError):  # it died at once: detected when its answer is received
        here.send(as_text(job))
    return LocalWorker(process, here)


def spawned_main(handle: int, parent: int) -> None:
    """Entry point of a spawned worker: `handle` is its end of the pipe, `parent` the pid of its parent."""
    _end_with(parent)
    pipe = Connection(handle)
    try:
        job = from_text(pipe.recv())
    except Exception as error:  # the constructor of a plug-in may raise anything
        pipe.send(("fatal", f"a worker process cannot plan this run again ({error}): use one worker"))
        return
    _work(pipe, job)


def _work(pipe: Connection, job: Assignment) -> None:
    """Run the steps whose keys are received, until the parent ends this process."""
    settings_of_a_worker(job.threads)
    runner = Runner(job.plan.steps, job.store, job.device, Sender(pipe.send))
    while True:
        try:
            key = pipe.recv()
        except EOFError:  # the parent ended
            return
        if key not in job.plan.steps:
            pipe.send(("fatal", "the suite or a plug-in file changed while it ran: run the same command again"))
            return
        over = True
        try:
            over = runner.run(job.plan.steps[key])
        except BenchError as error:
            pipe.send(("fatal", str(error)))
        pipe.send(("idle",) if over else ("held",))


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
