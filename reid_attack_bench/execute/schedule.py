"""Scheduling: order in which steps are started. Nothing here runs a step."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from reid_attack_bench.steps.step import Step, source_keys

NEAR = 0.8
"""A worker takes a step whose victim it has loaded if at least this share of the longest remaining path follows it."""


def needs(step: Step) -> tuple[str, ...]:
    """Keys of the steps that must have succeeded before `step` can start."""
    return (*step.inputs.values(), *step.after)


def resident(step: Step) -> str:
    """Key of the victim that `step` reads, the first of several; empty if it reads none."""
    return next(iter(source_keys(step)), "") or step.inputs.get("victim", "")


def work_behind(steps: Sequence[Step], cost: Mapping[str, float] | None = None) -> dict[str, float]:
    """Work on the longest path from each step to the end of the run, including the step.

    Args:
        steps: in an order that satisfies their needs.
        cost: key → work; by default that of the step in image passes, at least one.
    """
    behind: dict[str, float] = {}
    for step in reversed(steps):
        total = behind.get(step.key, 0.0) + (max(step.work, 1.0) if cost is None else cost[step.key])
        behind[step.key] = total
        for key in needs(step):
            behind[key] = max(behind.get(key, 0.0), total)
    return behind


class Queue:
    """Steps that have not been started, and those among them that can start.

    All operations together take time proportional to the number of steps and needs, times its logarithm.

    Args:
        todo: steps in an order that satisfies their needs; needs that are not among them are stored.
    """

    def __init__(self, todo: Sequence[Step]) -> None:
        self._waiting = {step.key: step for step in todo}
        behind = work_behind(todo)
        self._rank = {step.key: (-behind[step.key], place) for place, step in enumerate(todo)}
        self._missing = {step.key: {key for key in needs(step) if key in self._rank} for step in todo}
        self._dependents: dict[str, list[Step]] = defaultdict(list)
        self._ready: dict[str, list[tuple[tuple[float, int], str]]] = defaultdict(list)  # by resident victim
        for step in todo:
            for key in self._missing[step.key]:
                self._dependents[key].append(step)
            self._offer(step)

    def __bool__(self) -> bool:
        """Whether a step can start."""
        return any(self._ready.values())

    def __len__(self) -> int:
        """Number of steps that were not handed out, whether they can start or not."""
        return len(self._waiting)

    def take(self, loaded: Collection[str] = ()) -> Step:
        """The step with the most work behind it among those that can start; the first of the plan among equals.

        A step whose victim is loaded goes first if it has `NEAR` as much work behind it.

        Args:
            loaded: keys of the victims that the worker has in memory.
        """
        best = min(heap[0] for heap in self._ready.values() if heap)
        near = min((self._ready[key][0] for key in loaded if self._ready.get(key)), default=best)
        key = (near if near[0][0] <= NEAR * best[0][0] else best)[1]
        step = self._waiting.pop(key)
        group = resident(step)
        heapq.heappop(self._ready[group])
        if not self._ready[group]:
            del self._ready[group]
        return step

    def put_back(self, step: Step) -> None:
        """Hand `step` out again, because the worker that ran it was lost."""
        self._waiting[step.key] = step
        self._offer(step)

    def finish(self, key: str) -> None:
        """A step succeeded: what needed only this one can start."""
        for step in self._dependents.pop(key, ()):
            self._missing[step.key].discard(key)
            if step.key in self._waiting:
                self._offer(step)

    def fail(self, key: str, reason: str) -> dict[str, str]:
        """A step failed: remove all that depends on it. Returns key → reason for the removed steps."""
        found: dict[str, str] = {}
        failed = [key]
        while failed:
            for step in self._dependents.pop(failed.pop(), ()):
                if self._waiting.pop(step.key, None) is not None:
                    found[step.key] = reason
                    failed.append(step.key)
        return found

    def _offer(self, step: Step) -> None:
        if not self._missing[step.key]:
            heapq.heappush(self._ready[resident(step)], (self._rank[step.key], step.key))


def behind_gates(steps: Iterable[Step], failed: Mapping[str, str]) -> dict[str, str]:
    """Steps behind a gate that failed, and what reads them: key → reason. They may be stored from a run without it.

    Args:
        steps: in an order that satisfies their needs.
        failed: key → reason.
    """
    found: dict[str, str] = {}
    for step in steps:
        reasons = [failed.get(key) for key in step.after] + [found.get(key) for key in step.inputs.values()]
        reason = next(filter(None, reasons), None)
        if reason is not None and step.key not in failed:
            found[step.key] = reason
    return found
