"""Order in which steps are started."""

from __future__ import annotations

from reid_attack_bench.execute.events import Record
from reid_attack_bench.steps.step import Step


def next_step(order: list[Step], open_keys: set[str], record: Record) -> Step | None:
    """Take the first step that can begin; on the way drop those that cannot any more."""
    position = 0
    while position < len(order):
        step = order[position]
        if record.blocked(step):
            open_keys.discard(step.key)
            del order[position]
            position = 0  # what stands on it may come earlier
        elif open_keys.isdisjoint((*step.inputs.values(), *step.after)):
            return order.pop(position)
        else:
            position += 1
    return None


def work_behind(todo: list[Step]) -> dict[str, float]:
    """Work of each step and of the longest chain of steps that waits for it."""
    behind: dict[str, float] = {}
    for step in reversed(todo):
        total = behind.get(step.key, 0.0) + max(step.work, 1.0)
        behind[step.key] = total
        for key in (*step.inputs.values(), *step.after):
            behind[key] = max(behind.get(key, 0.0), total)
    return behind
