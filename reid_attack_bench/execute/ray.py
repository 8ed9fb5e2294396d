"""Steps as Ray tasks, on one machine or on a cluster (pip install 'reid-attack-bench[ray]').

Each step is a task with the resources of its kind. A worker gets the assignment as text, plans again and runs the step
with a given key; it keeps the plan and the victims that it has loaded for its next tasks. The store must be a folder
that all nodes see.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute import memory
from reid_attack_bench.execute.assignment import Assignment, as_text, from_text
from reid_attack_bench.execute.device import MEMORY_PER_WORKER, settings_of_a_worker
from reid_attack_bench.execute.parallel import Message, Sender, Team, Worker
from reid_attack_bench.execute.runner import Runner
from reid_attack_bench.steps.step import Step

_GPU_SHARE = {"victim": 1.0, "fit": 1.0, "craft": 1.0, "check": 1.0, "clean": 0.5, "features": 0.5}
"""Share of a GPU that a step takes, by its kind; the others, which compare embeddings or images, take a quarter."""

_OTHERS_SHARE = 0.25

_MEMORY = int(MEMORY_PER_WORKER * 2**30)
"""Memory that Ray reserves for a step without a limit, in bytes."""

_RETRIES = 2
"""Times that a step is run again after its worker or node was lost."""

_POLL = 0.05
"""Seconds between two looks at the mailbox."""

_LOOKS = 20
"""Looks at the mailbox before other work is seen to."""

_PATIENCE = 120.0
"""Seconds for which a run waits for a node that is large enough."""

_PROGRESS = 0.5
"""Seconds between two messages about the progress of a step."""


def start(assignment: Assignment, address: str) -> RayTeam:
    """Connect to a cluster and check that it can run steps.

    Args:
        assignment: its device says whether steps take GPUs; its threads are the cores of each step.
        address: of a cluster, as for ray.init; "auto" for the cluster that RAY_ADDRESS names or that runs on this
            machine, or else a new one here; "local" for a new one. A new one ends with the run.

    Raises:
        BenchError: Ray is not installed, there is no cluster at the address, or it has no such device.
    """
    ray = _ray()
    ours = not ray.is_initialized()  # else it is that of the program that calls this
    try:
        ray.init(
            address=None if address == "auto" else address, log_to_driver=False, logging_level="error",
            include_dashboard=False, ignore_reinit_error=True,
        )  # fmt: skip
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BenchError(f"--ray {address}: {' '.join(str(error).split())}") from error
    team = RayTeam(ray, assignment, ours)
    try:
        if assignment.device.type == "cuda" and not ray.cluster_resources().get("GPU"):
            raise BenchError(f"--ray {address}: the cluster has no GPU: use --device cpu")
        team.check_room(patience=0.0)
    except BenchError:
        team.dismiss()
        raise
    return team


class RayTeam(Team):
    """Tasks of a Ray cluster, as many at once as its resources allow.

    A worker of the team is a place for one task; Ray decides which process runs it. The connection is closed at the end
    if it is `ours`.
    """

    def __init__(self, ray: Any, assignment: Assignment, ours: bool = True) -> None:
        self._ray, self._assignment, self._ours = ray, assignment, ours
        self._text, self._folder = ray.put(as_text(assignment)), os.getcwd()
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        # on the node of this process, so that it is lost only together with the run
        self._mailbox = ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
        self._task = ray.remote(max_retries=0)(_run_step)
        self._tasks: dict[Any, Worker] = {}
        self._losses: dict[str, int] = {}
        self._memory = assignment.memory_limit or int(min(_MEMORY, max(self._of_nodes("memory"), default=_MEMORY)))
        self._over: dict[str, str] = {}
        self._had_room = time.monotonic()

    def _of_nodes(self, resource: str) -> list[float]:
        """How much each node that is alive has of a resource."""
        return [node["Resources"].get(resource, 0.0) for node in self._ray.nodes() if node["Alive"]]

    def check_room(self, patience: float = _PATIENCE) -> None:
        """Raise BenchError if for so many seconds there was no node that is large enough for a step."""
        needed = (float(self._assignment.threads), float(self._memory))
        nodes = list(zip(self._of_nodes("CPU"), self._of_nodes("memory"), strict=False))
        if any(cores >= needed[0] and memory >= needed[1] for cores, memory in nodes):
            self._had_room = time.monotonic()
        elif time.monotonic() - self._had_room >= patience:
            there = ", ".join(f"{cores:.0f} cores and {memory / 2**30:.1f} GiB" for cores, memory in nodes) or "no node"
            raise BenchError(
                f"no node of the cluster has the {needed[0]:.0f} cores and {needed[1] / 2**30:.1f} GiB of a "
                f"step (there: {there}): add a node, or lower --threads or --memory-limit; finished steps are kept"
            )

    def idle(self) -> Worker | None:
        return Worker() if self._free() else None

    def _free(self) -> bool:
        """Whether the cluster, which may have grown or shrunk, has room for a task. At least one always runs."""
        total = self._ray.cluster_resources()
        rooms = [total.get("CPU", 0.0) / self._assignment.threads, total.get("memory", self._memory) / self._memory]
        used = float(len(self._tasks))
        if self._assignment.device.type == "cuda":
            shares = sum(_share(worker.step) for worker in self._tasks.values() if worker.step is not None)
            return shares < total.get("GPU", 0.0) and used < max(1.0, min(rooms))
        return used < max(1.0, min(rooms) // 1)

    def give(self, worker: Worker, step: Step) -> None:
        gpu = _share(step) if self._assignment.device.type == "cuda" else 0
        options = {"num_cpus": self._assignment.threads, "num_gpus": gpu, "memory": self._memory, "name": step.label}
        self._tasks[self._task.options(**options).remote(self._text, step.key, self._mailbox, self._folder)] = worker

    def busy(self) -> bool:
        return bool(self._tasks)

    def messages(self) -> Iterator[tuple[Worker, Message]]:
        done: list[Any] = []
        told: list[Message] = []
        for _look in range(_LOOKS):
            if done or told:
                break
            done, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=_POLL)
            told = self._ray.get(self._mailbox.take.remote())
        if not (done or told):
            self.check_room()
        running = {worker.step.key: worker for worker in self._tasks.values() if worker.step is not None}
        for message in told:
            if message[0] == "over":  # just before its task ends
                self._over[message[1]] = message[2]
            elif message[1] in running:  # else of a task that is over
                yield running[message[1]], message
        for task in done:
            worker = self._tasks.pop(task)
            for message in self._result(task, worker):
                yield worker, message

    def _result(self, task: Any, worker: Worker) -> list[Message]:
        """What a finished task says; that it was lost or died if it did not finish."""
        errors, step = self._ray.exceptions, worker.step
        assert step is not None
        try:
            return self._ray.get(task)
        except errors.OutOfMemoryError as error:
            return [("died", f"out of memory: {_line(error)}")]
        except errors.RayTaskError as error:
            return [("fatal", _line(error.cause or error))]
        except errors.RayError as error:  # a worker or a node was lost
            if step.key in self._over:
                return [("died", self._over.pop(step.key))]
            self._losses[step.key] = self._losses.get(step.key, 0) + 1
            if self._losses[step.key] <= _RETRIES:
                return [("lost", f"a worker or node was lost ({_line(error)})")]
            return [("died", f"its worker was lost {self._losses[step.key]} times: {_line(error)}")]

    def dismiss(self) -> None:
        for task in self._tasks:
            self._ray.cancel(task, force=True)
        if self._ours:
            self._ray.shutdown()


class _Mailbox:
    """Actor that keeps messages until they are taken."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def put(self, message: Message) -> None:
        self.messages.append(message)

    def take(self) -> list[Message]:
        taken, self.messages = self.messages, []
        return taken


def _run_step(text: str, key: str, mailbox: Any, folder: str) -> list[Message]:
    """The task: run the step with this key. Returns all messages but those about its progress.

    Relative paths of the suite are those of `folder`, if this node has it.
    """
    place = socket.gethostname()
    with contextlib.suppress(OSError):
        os.chdir(folder)
    outbox = _outbox(text, place)
    outbox.begin(mailbox, key)
    runner = outbox.runner
    if key not in runner.steps:
        return [("fatal", f"node {place} plans other steps: the suite or a plug-in file changed, or the data differ")]
    try:
        over = runner.run(runner.steps[key])
    except BenchError as error:
        return [*outbox.kept, ("fatal", f"node {place}: {error}")]
    return [*outbox.kept, ("idle",) if over else ("held",)]


class _Outbox:
    """The runner of a process, and where it sends its events."""

    def __init__(self, assignment: Assignment, place: str) -> None:
        self.place = place
        self.runner = Runner(assignment.plan.steps, assignment.store, assignment.device, Sender(self._send))
        self.kept: list[Message] = []
        self.key = ""
        memory.watch(os.getpid(), assignment.memory_limit, self._end)

    def begin(self, mailbox: Any, key: str) -> None:
        self.kept, self._mailbox, self._told, self.key = [], mailbox, 0.0, key

    def _end(self, reason: str) -> None:
        """End this process for a reason."""
        _ray().get(self._mailbox.put.remote(("over", self.key, f"node {self.place}: {reason}")))
        os._exit(1)

    def _send(self, message: Message) -> None:
        name, *values = message
        if name == "progress":
            if time.monotonic() - self._told < _PROGRESS:
                return
            self._told = time.monotonic()
        if name in ("start", "progress"):
            self._mailbox.put.remote(message)
            if name == "start":
                self._mailbox.put.remote(("place", values[0], f"node {self.place}{_gpus()}"))
        else:
            self.kept.append((name, values[0], f"node {self.place}: {values[1]}") if name == "fail" else message)


@functools.lru_cache(maxsize=1)  # of the process: Ray runs its tasks one after another
def _outbox(text: str, place: str) -> _Outbox:
    try:
        assignment = from_text(text)
    except BenchError as error:
        raise BenchError(f"node {place} cannot run steps: {error}") from error
    if not assignment.store.is_there():
        raise BenchError(
            f"node {place} has no folder {assignment.store.root}: the store must be a folder that all nodes see"
        )
    settings_of_a_worker(assignment.threads)
    return _Outbox(assignment, place)


def _gpus() -> str:
    """GPUs of this task, for people."""
    return "".join(f" cuda:{number}" for number in _ray().get_gpu_ids())


def _share(step: Step) -> float:
    return _GPU_SHARE.get(step.kind, _OTHERS_SHARE)


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise BenchError("--ray requires Ray, which is not installed: pip install 'reid-attack-bench[ray]'") from error
