"""Several steps at once: worker processes that take steps from one list and tell how they went."""

from __future__ import annotations

import ctypes
import multiprocessing.connection
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import cv2
import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute.events import Record, Teller
from reid_attack_bench.execute.schedule import next_step, work_behind
from reid_attack_bench.steps.step import Step

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


@dataclass
class _Process:
    process: BaseProcess
    wire: Connection
    step: Step | None = None


class _PipeListener:
    """A teller at the far end of a pipe."""

    def __init__(self, wire: Connection) -> None:
        self._wire = wire

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda step, *values: self._wire.send((name, step.key, values))


def run_in_parallel(
    todo: list[Step],
    record: Record,
    workers: int,
    make_runner: Callable[[Teller], Callable[[Step], None]],
    threads: int,
) -> None:
    """Do `todo` in `workers` processes, each step once all that it stands on is done.

    Of the steps that can begin, the one with most work behind it goes first. The processes are forked, so a plan
    may hold anything; they die with this one, however it dies.

    Args:
        todo: steps in an order that satisfies their inputs; inputs that are not among them are stored.
        record: hears everything, here.
        make_runner: called in each process with its teller; returns what does one step.
        threads: of torch in each process.

    Raises:
        BenchError: what a runner raised, when nothing else can be done either.
    """
    steps = {step.key: step for step in todo}
    behind = work_behind(todo)
    order = sorted(todo, key=lambda step: behind[step.key], reverse=True)
    open_keys = set(steps)
    lanes = [_open_lane(steps, make_runner, threads) for _ in range(workers)]
    try:
        while order or any(lane.step for lane in lanes):
            for lane in lanes:
                if lane.step is None:
                    lane.step = next_step(order, open_keys, record)
                    if lane.step is not None:
                        lane.wire.send(lane.step.key)
            busy = {lane.wire: lane for lane in lanes if lane.step is not None}
            for wire in multiprocessing.connection.wait(list(busy)):
                lane = busy[wire]  # type: ignore[index]
                try:
                    event, key, values = lane.wire.recv()
                except (EOFError, ConnectionResetError):
                    assert lane.step is not None
                    lane.process.join()
                    record.fail(lane.step, f"its process died with exit status {lane.process.exitcode}: out of memory?")
                    open_keys.discard(lane.step.key)
                    lanes[lanes.index(lane)] = _open_lane(steps, make_runner, threads)
                    continue
                if event == "fatal":
                    raise BenchError(values[0])
                if event == "idle":
                    open_keys.discard(key)
                    lane.step = None
                else:
                    getattr(record, event)(steps[key], *values)
    finally:
        for lane in lanes:
            lane.process.kill()
            lane.process.join()


def _open_lane(
    steps: dict[str, Step], make_runner: Callable[[Teller], Callable[[Step], None]], threads: int
) -> _Process:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    process = context.Process(target=_work, args=(there, steps, make_runner, threads, os.getpid()), daemon=True)
    process.start()
    there.close()
    return _Process(process, here)


def _work(
    wire: Connection,
    steps: dict[str, Step],
    make_runner: Callable[[Teller], Callable[[Step], None]],
    threads: int,
    parent: int,
) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    run = make_runner(_PipeListener(wire))
    while True:
        step = steps[wire.recv()]
        try:
            run(step)
        except BenchError as error:
            wire.send(("fatal", step.key, (str(error),)))
        wire.send(("idle", step.key, ()))
