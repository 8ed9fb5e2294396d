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

from reid_attack_bench.steps.step import Step


class RichListener:
    """Bars on a terminal (the run, and each step under way); one line per slow step that is finished."""

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
        self.under_way: dict[str, TaskID] = {}
        self.done_of: dict[str, float] = {}
        self.steps_total = 0
        self.steps_done = 0

    def begin(self, missing: list[Step], total: int) -> None:
        stored = total - len(missing)
        self.console.print(f"{total} steps: {len(missing)} to do, {stored} already in the store or not needed")
        if missing:
            self.steps_total = len(missing)
            self.run = self.bars.add_task("run", total=sum(max(s.work, 1.0) for s in missing), note="")
            self.bars.start()

    def start(self, step: Step) -> None:
        self.under_way[step.key] = self.bars.add_task(step.label, total=None, note="")

    def progress(self, step: Step, done: int, total: int, note: str) -> None:
        if step.key in self.under_way:
            self.bars.update(self.under_way[step.key], completed=done, total=total, note=note)
        self._advance(step, done / max(total, 1))

    def finish(self, step: Step, seconds: float) -> None:
        self._end(step)
        if seconds >= self.slow:
            self.console.print(f"[dim]{seconds:7.1f} s[/dim]  {step.label}", highlight=False)

    def fail(self, step: Step, reason: str) -> None:
        self._end(step)
        self.console.print(f"[bold red]failed[/bold red]   {step.label}: {reason}", highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        self.console.print(f"[yellow]note[/yellow]     {text}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        self.bars.stop()

    def _end(self, step: Step) -> None:
        self.steps_done += 1
        self._advance(step, 1.0)
        if step.key in self.under_way:
            self.bars.remove_task(self.under_way.pop(step.key))

    def _advance(self, step: Step, share: float) -> None:
        if self.run is not None:
            self.done_of[step.key] = share * max(step.work, 1.0)
            note = f"{self.steps_done} of {self.steps_total} steps"
            self.bars.update(self.run, completed=sum(self.done_of.values()), note=note)


class JsonListener:
    """One JSON object per line on standard output, for programs."""

    def _say(self, event: str, **values: Any) -> None:
        sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
        sys.stdout.flush()

    def begin(self, missing: list[Step], total: int) -> None:
        self._say("begin", to_do=len(missing), total=total)

    def start(self, step: Step) -> None:
        self._say("start", kind=step.kind, label=step.label, key=step.key)

    def progress(self, step: Step, done: int, total: int, note: str) -> None:
        pass

    def finish(self, step: Step, seconds: float) -> None:
        self._say("done", kind=step.kind, label=step.label, key=step.key, seconds=round(seconds, 3))

    def fail(self, step: Step, reason: str) -> None:
        self._say("failed", kind=step.kind, label=step.label, key=step.key, reason=reason)

    def note(self, text: str) -> None:
        self._say("note", text=text)

    def close(self) -> None:
        pass
