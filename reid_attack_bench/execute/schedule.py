"""Scheduling: order in which steps are started. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from reid_attack_bench.steps.step import Step


def needs(step: Step) -> tuple[str, ...]:
    """Keys of the steps that must have succeeded before `step` can start."""
    return (*step.inputs.values(), *step.after)


def work_behind(steps: Sequence[Step]) -> dict[str, float]:
    """Work on the longest path from each step to the end of the run, including the step, in image passes.

    Args:
        steps: in an order that satisfies their needs.
    """
    behind: dict[str, float] = {}
    for step in reversed(steps):
        total = behind.get(step.key, 0.0) + max(step.work, 1.0)
        behind[step.key] = total
        for key in needs(step):
            behind[key] = max(behind.get(key, 0.0), total)
    return behind


def by_work_behind(steps: Sequence[Step]) -> list[Step]:
    """Order steps by critical path. Input and result are in an order that satisfies the needs."""
    behind = work_behind(steps)
    return sorted(steps, key=lambda step: behind[step.key], reverse=True)


def next_step(waiting: Iterable[Step], unfinished: Set[str]) -> Step | None:
    """The first waiting step whose needs are all finished; None if there is none."""
    return next((step for step in waiting if unfinished.isdisjoint(needs(step))), None)


def blocked(waiting: Iterable[Step], failed: Mapping[str, str]) -> dict[str, str]:
    """Waiting steps that cannot be run any more: key → reason of the failed step that they need.

    Args:
        waiting: in an order that satisfies their needs.
        failed: key → reason.
    """
    found: dict[str, str] = {}
    for step in waiting:
        for key in needs(step):
            reason = failed.get(key) or found.get(key)
            if reason is not None:
                found[step.key] = reason
                break
    return found


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
