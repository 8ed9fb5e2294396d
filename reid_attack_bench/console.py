"""What a run shows while it goes: rich progress with the time left, or one JSON object per line."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from reid_attack_bench.plan import Step


class RichWatcher:
    """Two bars on a terminal (the run, the step); one line per finished slow step elsewhere."""

    slow = 1.0  # seconds: what a person would wonder about

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=console,
            transient=True,
            speed_estimate_period=600,
        )
        self.run: TaskID | None = None
        self.step: TaskID | None = None
        self.work = 0.0
        self.steps_done = 0
        self.steps_total = 0

    def begin(self, missing: list[Step], total: int) -> None:
        stored = total - len(missing)
        self.console.print(f"{total} steps: {len(missing)} to do, {stored} already in the store or not needed")
        if missing:
            self.steps_total = len(missing)
            self.run = self.bars.add_task("run", total=sum(max(s.work, 1.0) for s in missing), note="")
            self.bars.start()

    def start(self, step: Step) -> None:
        if self.step is not None:
            self.bars.remove_task(self.step)
        self.step = self.bars.add_task(step.label, total=None, note="")
        self.work = max(step.work, 1.0)
        self.start_at = self.bars.tasks[0].completed if self.run is not None else 0.0

    def progress(self, done: int, total: int, note: str) -> None:
        if self.step is not None:
            self.bars.update(self.step, completed=done, total=total, note=note)
        if self.run is not None:
            self.bars.update(self.run, completed=self.start_at + self.work * done / max(total, 1))

    def finish(self, step: Step, seconds: float) -> None:
        self.steps_done += 1
        if self.run is not None:
            note = f"{self.steps_done} of {self.steps_total} steps"
            self.bars.update(self.run, completed=self.start_at + self.work, note=note)
        if seconds >= self.slow:
            self.console.print(f"[dim]{seconds:7.1f} s[/dim]  {step.label}", highlight=False)

    def fail(self, step: Step, reason: str) -> None:
        self.console.print(f"[bold red]failed[/bold red]   {step.label}: {reason}", highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        self.console.print(f"[yellow]note[/yellow]     {text}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        self.bars.stop()


class JsonWatcher:
    """One JSON object per line on standard output, for programs."""

    def _say(self, event: str, **values: Any) -> None:
        sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
        sys.stdout.flush()

    def begin(self, missing: list[Step], total: int) -> None:
        self._say("begin", to_do=len(missing), total=total)

    def start(self, step: Step) -> None:
        self._say("start", kind=step.kind, label=step.label, key=step.key)

    def progress(self, done: int, total: int, note: str) -> None:
        pass

    def finish(self, step: Step, seconds: float) -> None:
        self._say("done", kind=step.kind, label=step.label, key=step.key, seconds=round(seconds, 3))

    def fail(self, step: Step, reason: str) -> None:
        self._say("failed", kind=step.kind, label=step.label, key=step.key, reason=reason)

    def note(self, text: str) -> None:
        self._say("note", text=text)

    def close(self) -> None:
        pass
