"""The table of a run: what runs where, and the time left."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from reid_attack_bench.jobs.progress import RichListener
from reid_attack_bench.jobs.time_left import TimeLeft, in_words
from reid_attack_bench.steps.step import Step

TRAIN = Step("victim", 1, "[toy]@plaza", {"n": 0}, action="train", work=100)
CRAFTS = [Step("craft", 1, f"pgd {n}", {"n": n}, work=10) for n in range(4)]


def test_time_left_follows_the_pace_of_each_kind_and_the_steps_at_once() -> None:
    time = TimeLeft([TRAIN, *CRAFTS])
    assert time.total == 140
    assert time.seconds() is None
    time.start(TRAIN)
    time.progress(TRAIN, 0.5)
    assert time.left == 90
    time.end(TRAIN, 200.0)
    assert time.seconds() == 40 * 2.0, "other kinds go at the pace of all"
    time.start(CRAFTS[0])
    time.start(CRAFTS[1])
    time.end(CRAFTS[0], 5.0)
    assert time.seconds() == pytest.approx(30 * 0.5 / 2)
    time.progress(CRAFTS[1], 0.5)
    assert time.seconds() == pytest.approx(25 * 0.5 / 2)
    time.end(CRAFTS[1])  # it failed
    time.end(Step("craft", 1, "corrupt input, made again", work=1e6), 5.0)
    assert time.left == 20


@pytest.mark.parametrize(
    ("seconds", "words"), [(40, "40 s"), (89.4, "89 s"), (720, "12 min"), (5400, "1.5 h"), (4444200, "1,234.5 h")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def listener(out: io.StringIO, terminal: bool) -> RichListener:
    made = RichListener(Console(file=out, width=140, force_terminal=terminal, color_system=None))
    made.begin([TRAIN, *CRAFTS], 7)
    return made


def shown(made: RichListener) -> list[str]:
    """Rows of the table."""
    out = io.StringIO()
    Console(file=out, width=140).print(made.bars.get_renderable())
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def test_the_table_says_which_step_runs_where_and_what_is_left() -> None:
    made = listener(io.StringIO(), terminal=True)
    made.start(TRAIN)
    made.place(TRAIN, "node [red]a")
    made.progress(TRAIN, 1, 4, "loss 0.1")
    made.start(CRAFTS[0])
    made.place(CRAFTS[0], "cuda:1")
    made.finish(CRAFTS[0], 30.0)
    made.start(TRAIN)  # its node was lost
    made.place(TRAIN, "node b")
    made.progress(TRAIN, 1, 2, "loss 0.1")
    rows = shown(made)
    made.close()
    assert len(rows) == 2
    assert rows[0].startswith("run ")
    assert rows[0].endswith("1 of 5 steps, about 2 min left"), "(50 + 30) passes at 3 s, two at once"
    assert rows[1].startswith("train [toy]@plaza node b")
    assert "50%" in rows[1]
    assert rows[1].endswith("loss 0.1")


def test_without_a_terminal_lines_say_the_same() -> None:
    out = io.StringIO()
    made = listener(out, terminal=False)
    made.start(TRAIN)
    made.place(TRAIN, "worker 1")
    made.finish(TRAIN, 200.0)
    made.fail(CRAFTS[0], "node a: out of memory")
    made.close()
    lines = [line.strip() for line in out.getvalue().splitlines() if line.strip()]
    assert lines == [
        "7 steps: 5 to do, 2 already in the store or not needed",
        "200.0 s  train [toy]@plaza (worker 1; 1 of 5 steps, about 80 s left)",
        "failed   craft pgd 0: node a: out of memory",
    ]
