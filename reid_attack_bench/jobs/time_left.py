"""Time that is left of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from reid_attack_bench.steps.step import Step


class TimeLeft:
    """Time left, from the work left of each kind, the pace at which steps of that kind went, and how many run at once.

    Args:
        missing: steps of the run. Others, such as corrupt inputs that are made again, are not counted.
    """

    def __init__(self, missing: Iterable[Step]) -> None:
        self._left = {step.key: max(step.work, 1.0) for step in missing}
        self._of_kind: dict[str, float] = defaultdict(float)
        for step in missing:
            self._of_kind[step.kind] += self._left[step.key]
        self._spent: dict[str, tuple[float, float]] = {}  # kind → seconds, work
        self._running: set[str] = set()
        self._at_once = 1
        self.total = self.left = sum(self._left.values())
        """In image passes, at least one for each step."""

    def start(self, step: Step) -> None:
        self._running.add(step.key)
        self._at_once = max(self._at_once, len(self._running))

    def progress(self, step: Step, share: float) -> None:
        """A step is done to this share."""
        if step.key in self._left:
            left = (1.0 - min(share, 1.0)) * max(step.work, 1.0)
            change, self._left[step.key] = left - self._left[step.key], left
            self._of_kind[step.kind] += change
            self.left += change

    def end(self, step: Step, seconds: float | None = None) -> None:
        """A step ended, after so many seconds if it succeeded."""
        self.progress(step, 1.0)
        self._running.discard(step.key)
        if seconds is not None:
            before = self._spent.get(step.kind, (0.0, 0.0))
            self._spent[step.kind] = before[0] + seconds, before[1] + max(step.work, 1.0)

    def seconds(self) -> float | None:
        """Seconds left; None before the first step has succeeded."""
        spent = [sum(column) for column in zip(*self._spent.values(), strict=True)]
        if not spent:
            return None
        rates = {kind: seconds / work for kind, (seconds, work) in self._spent.items()}
        ahead = sum(work * rates.get(kind, spent[0] / spent[1]) for kind, work in self._of_kind.items())
        return max(ahead, 0.0) / self._at_once


def in_words(seconds: float) -> str:
    """For instance "40 s", "12 min" or "1,234.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
