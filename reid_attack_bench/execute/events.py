"""Events of a run, and the outcome they add up to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from reid_attack_bench.steps.step import Step


class Listener(Protocol):
    """Who is told how a run goes; see console.py."""

    def begin(self, missing: list[Step], total: int) -> None: ...

    def start(self, step: Step) -> None: ...

    def progress(self, step: Step, done: int, total: int, note: str) -> None: ...

    def finish(self, step: Step, seconds: float) -> None: ...

    def fail(self, step: Step, reason: str) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass
class Outcome:
    """How a run went.

    Attributes:
        failed: key → reason, for steps that failed and all that stood on them.
        causes: the reasons that came first, one line each.
        seconds: key → time, for the steps done in this run.
        rebuilt: labels of corrupt artefacts made again.
    """

    failed: dict[str, str] = field(default_factory=dict)
    causes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    rebuilt: list[str] = field(default_factory=list)


@dataclass
class Recorder:
    """Takes what happens into the outcome, and passes it on to the listener."""

    outcome: Outcome
    listener: Listener

    def blocked(self, step: Step) -> bool:
        """Whether something that `step` stands on has failed; then so has it, for the same reason."""
        for key in (*step.inputs.values(), *step.after):
            if key in self.outcome.failed:
                self.outcome.failed[step.key] = self.outcome.failed[key]
                return True
        return False

    def start(self, step: Step) -> None:
        self.listener.start(step)

    def progress(self, step: Step, done: int, total: int, note: str) -> None:
        self.listener.progress(step, done, total, note)

    def finish(self, step: Step, seconds: float) -> None:
        self.outcome.seconds[step.key] = seconds
        self.listener.finish(step, seconds)

    def fail(self, step: Step, reason: str) -> None:
        line = " ".join(reason.split())
        self.outcome.failed[step.key] = line
        self.outcome.causes.append(f"{step.label}: {line}")
        self.listener.fail(step, line)

    def rebuild(self, step: Step, reason: str) -> None:
        self.outcome.rebuilt.append(step.label)
        self.listener.note(f"{reason}; making it again")

    def note(self, step: Step, text: str) -> None:
        self.listener.note(text)


class Teller(Protocol):
    """Who hears of a step while it runs."""

    def start(self, step: Step) -> None: ...

    def progress(self, step: Step, done: int, total: int, note: str) -> None: ...

    def finish(self, step: Step, seconds: float) -> None: ...

    def fail(self, step: Step, reason: str) -> None: ...

    def rebuild(self, step: Step, reason: str) -> None: ...

    def note(self, step: Step, text: str) -> None: ...


class Record(Teller, Protocol):
    """Who hears of all steps, and knows which cannot be done any more."""

    def blocked(self, step: Step) -> bool: ...
