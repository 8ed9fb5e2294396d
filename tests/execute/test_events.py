"""Events of a run add up to its outcome."""

from __future__ import annotations

from reid_attack_bench.execute.events import Listener, Outcome, Recorder
from reid_attack_bench.steps.step import Step

ONE, OTHER = (Step("data", 1, name, {"name": name}) for name in ("one", "other"))


class Heard(Listener):
    def __init__(self) -> None:
        self.events: list[tuple] = []

    def begin(self, missing, total) -> None:
        self.events.append(("begin", len(missing), total))

    def start(self, step) -> None:
        self.events.append(("start", step.about))

    def progress(self, step, done, total, note) -> None:
        self.events.append(("progress", step.about, done, total, note))

    def finish(self, step, seconds) -> None:
        self.events.append(("finish", step.about, seconds))

    def fail(self, step, reason) -> None:
        self.events.append(("fail", step.about, reason))

    def note(self, text) -> None:
        self.events.append(("note", text))


def happen(listener: Listener) -> None:
    listener.begin([ONE, OTHER], 3)
    listener.start(ONE)
    listener.progress(ONE, 1, 2, "loss 3")
    listener.rebuild(OTHER, "a.txt is missing")
    listener.finish(ONE, 1.5)
    listener.fail(OTHER, "two\n  lines")
    listener.note("by the way")


def test_the_recorder_adds_up_the_outcome_and_passes_everything_on() -> None:
    outcome, heard = Outcome(), Heard()
    happen(Recorder(outcome, heard))
    assert outcome.seconds == {ONE.key: 1.5}
    assert outcome.failed == {OTHER.key: "two lines"}
    assert outcome.causes == ["data other: two lines"]
    assert outcome.rebuilt == ["data other"]
    assert heard.events == [
        ("begin", 2, 3),
        ("start", "one"),
        ("progress", "one", 1, 2, "loss 3"),
        ("note", "a.txt is missing; making it again"),
        ("finish", "one", 1.5),
        ("fail", "other", "two lines"),
        ("note", "by the way"),
    ]


def test_a_listener_need_not_override_anything() -> None:
    happen(Listener())
