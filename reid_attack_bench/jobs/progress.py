"""Progress of a run: progress bars in a terminal or notebook, or one JSON object per line."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from reid_attack_bench.execute.events import Listener
from reid_attack_bench.jobs.time_left import TimeLeft, in_words
from reid_attack_bench.steps.step import Step
from reid_attack_bench.text import PlainConsole, one_line, visible

_SLOW = 1.0
"""Duration in seconds from which a finished step is printed in a terminal."""

_REFRESH = 0.5
"""Seconds between two updates in a notebook."""


class RichListener(Listener):
    """A table of what runs where, with a bar for the run and one for each running step, and what is left of the run.

    Slow steps are also printed when they are finished: where, and without a terminal with the time left. In a notebook
    the table is one output, updated by the events of the run without a thread or widget.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.in_notebook = console.is_jupyter
        self.output: Any = None
        self.updated = 0.0
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[place]}", style="cyan", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=console,
            transient=True,
            auto_refresh=not self.in_notebook,
        )
        self.run: TaskID | None = None
        self.running: dict[str, TaskID] = {}
        self.places: dict[str, str] = {}
        self.time = TimeLeft([])
        self.steps_total = 0
        self.steps_done = 0

    def begin(self, missing: Sequence[Step], total: int) -> None:
        stored = total - len(missing)
        text = f"{total} steps: {len(missing)} to do, {stored} already in the store or not needed"
        self.console.print(text, highlight=False, markup=False)
        if missing:
            self.steps_total = len(missing)
            self.time = TimeLeft(missing)
            self.run = self.bars.add_task("run", total=self.time.total, note="", place="")
            self._show()

    def start(self, step: Step) -> None:
        self._forget(step)  # its worker may have been lost
        self.running[step.key] = self.bars.add_task(one_line(step.label), total=None, note="", place="")
        self.time.start(step)

    def place(self, step: Step, place: str) -> None:
        self.places[step.key] = place
        if step.key in self.running:
            self.bars.update(self.running[step.key], place=one_line(place))

    def progress(self, step: Step, done: int, total: int, note: str) -> None:
        if step.key in self.running:
            self.bars.update(self.running[step.key], completed=done, total=total, note=one_line(note))
        self.time.progress(step, done / max(total, 1))
        self._show_run()

    def finish(self, step: Step, seconds: float) -> None:
        place = self.places.get(step.key, "")
        self._end(step, seconds)
        if seconds >= _SLOW and not self.in_notebook:
            more = [place] if place else []
            more += [] if self.console.is_terminal else [self._state()]
            text = f"{step.label} ({'; '.join(more)})" if more else step.label
            self._say(f"{seconds:7.1f} s", "dim", f"  {one_line(text)}")

    def found(self, step: Step) -> None:
        self._end(step, None)

    def fail(self, step: Step, reason: str) -> None:
        self._end(step, None)
        self._say("failed", "bold red", f"   {one_line(step.label)}: {visible(reason)}")

    def note(self, text: str) -> None:
        self._say("note", "yellow", f"     {visible(text)}")

    def close(self) -> None:
        """Remove the bars."""
        if self.in_notebook:
            self._update(force=True)
        else:
            self.bars.stop()

    def _say(self, word: str, style: str, text: str) -> None:
        self.console.print(Text.assemble((word, style), text), highlight=False, soft_wrap=True)

    def _show(self) -> None:
        if not self.in_notebook:
            self.bars.start()
            return
        from IPython.display import display

        self.output = display(self.bars, display_id=True)

    def _update(self, force: bool = False) -> None:
        now = time.monotonic()
        if self.output is not None and (force or now - self.updated >= _REFRESH):
            self.updated = now
            self.output.update(self.bars)

    def _end(self, step: Step, seconds: float | None) -> None:
        self.steps_done += 1
        self.time.end(step, seconds)
        self._forget(step)
        self._show_run()

    def _forget(self, step: Step) -> None:
        self.places.pop(step.key, None)
        if step.key in self.running:
            self.bars.remove_task(self.running.pop(step.key))

    def _state(self) -> str:
        """What is left of the run."""
        seconds = self.time.seconds()
        left = "" if seconds is None else f", about {in_words(seconds)} left"
        return f"{self.steps_done} of {self.steps_total} steps{left}"

    def _show_run(self) -> None:
        if self.run is not None:
            self.bars.update(self.run, completed=self.time.total - self.time.left, note=self._state())
            self._update()


class JsonListener(Listener):
    """One JSON object per line on `out`, by default what was standard output when it was made, for programs to read."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout

    def _say(self, event: str, **values: Any) -> None:
        self._out.write(json.dumps({"event": event, **values}) + "\n")
        self._out.flush()

    def begin(self, missing: Sequence[Step], total: int) -> None:
        self._say("begin", to_do=len(missing), total=total)

    def start(self, step: Step) -> None:
        self._say("start", kind=step.kind, label=step.label, key=step.key)

    def place(self, step: Step, place: str) -> None:
        self._say("place", kind=step.kind, label=step.label, key=step.key, place=place)

    def finish(self, step: Step, seconds: float) -> None:
        self._say("done", kind=step.kind, label=step.label, key=step.key, seconds=round(seconds, 3))

    def fail(self, step: Step, reason: str) -> None:
        self._say("failed", kind=step.kind, label=step.label, key=step.key, reason=reason)

    def note(self, text: str) -> None:
        self._say("note", text=text)


@contextmanager
def listening(progress: bool | Listener) -> Iterator[Listener]:
    """Context manager of a listener: progress bars for True, none for False, or the given one."""
    listener = progress if not isinstance(progress, bool) else RichListener(PlainConsole()) if progress else Listener()
    try:
        yield listener
    finally:
        if isinstance(listener, RichListener):
            listener.close()
