"""Events of a run and their outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from reid_attack_bench.steps.step import Step


class Listener:
    """Receives the events of a run. Methods do nothing by default; override as needed."""

    def begin(self, missing: Sequence[Step], total: int) -> None:
        """The run starts: `missing` of `total` steps are to be run."""

    def start(self, step: Step) -> None:
        """A step starts."""

    def place(self, step: Step, place: str) -> None:
        """The step that started runs at `place`: a worker, GPU or node; not said without workers."""

    def progress(self, step: Step, done: int, total: int, note: str) -> None:
        """A step has done `done` of `total` units; `note` is a few words, e.g. a loss."""

    def finish(self, step: Step, seconds: float) -> None:
        """A step is stored."""

    def found(self, step: Step) -> None:
        """Another run on the same store has stored a step that was missing."""

    def fail(self, step: Step, reason: str) -> None:
        """A step failed; `reason` is one line."""

    def rebuild(self, step: Step, reason: str) -> None:
        """The stored result of a step is corrupt and will be made again."""
        self.note(f"{reason}; making it again")

    def note(self, text: str) -> None:
        """A message for the user."""


@dataclass
class Outcome:
    """Outcome of a run.

    Attributes:
        failed: key → reason, for steps that failed and all that depend on them.
        causes: "LABEL: REASON" of each step that failed by itself, one line each.
        seconds: key → duration in seconds of the steps run in this run.
        rebuilt: labels of corrupt results that were made again.
        threads: number of threads of torch and OpenCV of each step.
    """

    failed: dict[str, str] = field(default_factory=dict)
    causes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    rebuilt: list[str] = field(default_factory=list)
    threads: int = 1


@dataclass(frozen=True)
class Recorder(Listener):
    """Records events in `outcome` and passes them on to `listener`."""

    outcome: Outcome
    listener: Listener

    def begin(self, missing: Sequence[Step], total: int) -> None:
        self.listener.begin(missing, total)

    def start(self, step: Step) -> None:
        self.listener.start(step)

    def place(self, step: Step, place: str) -> None:
        self.listener.place(step, place)

    def progress(self, step: Step, done: int, total: int, note: str) -> None:
        self.listener.progress(step, done, total, note)

    def finish(self, step: Step, seconds: float) -> None:
        self.outcome.seconds[step.key] = seconds
        self.listener.finish(step, seconds)

    def found(self, step: Step) -> None:
        self.listener.found(step)

    def fail(self, step: Step, reason: str) -> None:
        line = " ".join(reason.split())
        self.outcome.failed[step.key] = line
        self.outcome.causes.append(f"{step.label}: {line}")
        self.listener.fail(step, line)

    def rebuild(self, step: Step, reason: str) -> None:
        self.outcome.rebuilt.append(step.label)
        self.listener.rebuild(step, reason)

    def note(self, text: str) -> None:
        self.listener.note(text)
