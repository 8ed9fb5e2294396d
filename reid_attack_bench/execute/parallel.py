"""Run steps on a team of workers: one scheduler for local processes, several GPUs and clusters."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute.events import Listener, Recorder
from reid_attack_bench.execute.schedule import Queue, resident
from reid_attack_bench.steps.step import Step
from reid_attack_bench.steps.workspace import VICTIMS_IN_MEMORY
from reid_attack_bench.store import Store, described

Message = tuple[Any, ...]
"""An event of a worker, with the keys of steps in place of steps: the name of a method of Listener and its arguments.

Besides, "idle" ends a step; "held" says that another run is doing it; "died" with a reason says that the worker ended
in the middle of one, and "lost" that it did so for a reason outside the step, which is then given to another worker;
"fatal" with a reason ends the run.
"""


class Worker:
    """A worker of a team.

    Attributes:
        place: its name, see Listener.place; empty if its messages say where it is.
        step: the step that it runs; None if it is idle.
        loaded: keys of the victims that it has in memory, the last used at the end.
    """

    place: str = ""

    def __init__(self) -> None:
        self.step: Step | None = None
        self.loaded: OrderedDict[str, None] = OrderedDict()

    def begin(self, step: Step) -> None:
        """It is given `step`."""
        self.step = step
        if key := resident(step):
            self.loaded[key] = None
            self.loaded.move_to_end(key)
            if len(self.loaded) > VICTIMS_IN_MEMORY:
                self.loaded.popitem(last=False)


class Team(ABC):
    """Workers that run steps by key, each one at a time."""

    @abstractmethod
    def idle(self) -> Worker | None:
        """A worker without a step, started now if need be; None if all that there may be are busy."""

    @abstractmethod
    def give(self, worker: Worker, step: Step) -> None:
        """Have `worker` run `step`."""

    @abstractmethod
    def busy(self) -> bool:
        """Whether a worker runs a step."""

    @abstractmethod
    def messages(self) -> Iterable[tuple[Worker, Message]]:
        """Messages of the busy workers; waits a moment for one."""

    @abstractmethod
    def dismiss(self) -> None:
        """End all workers."""


AGAIN = 1.0
"""Seconds between two looks at what another run is doing."""


def run_in_parallel(
    todo: Sequence[Step], recorder: Recorder, team: Team, steps: Mapping[str, Step], store: Store
) -> None:
    """Run the steps `todo` on `team`, each when the steps it needs are done. All workers are ended at the end.

    A step fails if its worker dies, and fails those that depend on it.

    Args:
        todo: steps in an order that satisfies their needs; needs that are not among them are stored.
        recorder: receives all events, in this process.
        steps: key → step, for all steps that may be run, including inputs that turn out corrupt.
        store: where other runs may store steps too.

    Raises:
        BenchError: no further step can succeed, e.g. because the disk is full.
    """
    queue = Queue(todo)
    held: list[Step] = []
    looked, pause = time.monotonic(), Pause(recorder, store)
    try:
        while True:
            if held and time.monotonic() - looked >= AGAIN:
                looked = time.monotonic()
                held = _still_held(held, queue, recorder, store)
            while queue and (worker := team.idle()) is not None:
                step = queue.take(worker.loaded)
                worker.begin(step)
                team.give(worker, step)
            if not team.busy():
                if not held:
                    break
                pause.wait(held)
                continue
            for worker, message in team.messages():
                if message[0] == "lost" and worker.step:  # another machine would respect its claim for a while
                    store.claims.drop(worker.step.key)
                if message[0] == "held":
                    held += [worker.step] if worker.step else []
                    worker.step = None
                else:
                    _receive(worker, message, queue, recorder, steps)
    finally:
        team.dismiss()
    assert not len(queue), "a step was neither run nor failed"


class Pause:
    """Waits a moment for what another run is doing, and says so the first time."""

    def __init__(self, listener: Listener, store: Store) -> None:
        self._listener, self._store, self._said = listener, store, False

    def wait(self, held: Iterable[Step]) -> None:
        """Wait; all that is left are the steps `held`, or needs them."""
        owner = "" if self._said else next(filter(None, (self._store.claims.holder(each.key) for each in held)), "")
        if owner:
            self._said = True
            self._listener.note(f"waiting for another run on this store ({described(owner)}): it is doing what is left")
        time.sleep(AGAIN)


def _still_held(held: list[Step], queue: Queue, recorder: Recorder, store: Store) -> list[Step]:
    """Those of `held` that another run is still doing; the others are done, or go back to the queue."""
    left = []
    for step in held:
        if store.has(step.kind, step.key):
            recorder.found(step)
            queue.finish(step.key)
        elif store.claims.holder(step.key):
            left.append(step)
        else:
            queue.put_back(step)
    return left


def _receive(worker: Worker, message: Message, queue: Queue, recorder: Recorder, steps: Mapping[str, Step]) -> None:
    name, *values = message
    if name == "fatal":
        raise BenchError(values[0])
    if name == "note":
        recorder.note(*values)
        return
    if name not in ("idle", "died", "lost"):
        getattr(recorder, name)(steps[values[0]], *values[1:])
        if name == "start" and worker.place:
            recorder.place(steps[values[0]], worker.place)
        return
    step, worker.step = worker.step, None
    assert step is not None
    if name == "died":
        recorder.fail(step, values[0])
    if name == "lost":
        recorder.note(f"{values[0]}; step '{step.label}' is run again")
        queue.put_back(step)
    elif step.key in recorder.outcome.failed:
        recorder.outcome.failed.update(queue.fail(step.key, recorder.outcome.failed[step.key]))
    else:
        queue.finish(step.key)


class Sender(Listener):
    """Sends the events of a worker as messages.

    Args:
        send: takes one message.
    """

    def __init__(self, send: Any) -> None:
        self._send = send

    def start(self, step: Step) -> None:
        self._send(("start", step.key))

    def progress(self, step: Step, done: int, total: int, note: str) -> None:
        self._send(("progress", step.key, done, total, note))

    def finish(self, step: Step, seconds: float) -> None:
        self._send(("finish", step.key, seconds))

    def found(self, step: Step) -> None:
        self._send(("found", step.key))

    def fail(self, step: Step, reason: str) -> None:
        self._send(("fail", step.key, reason))

    def rebuild(self, step: Step, reason: str) -> None:
        self._send(("rebuild", step.key, reason))

    def note(self, text: str) -> None:
        self._send(("note", text))
