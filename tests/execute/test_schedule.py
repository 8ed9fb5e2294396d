"""The order in which steps start."""

from __future__ import annotations

from reid_attack_bench.execute.schedule import behind_gates, blocked, by_work_behind, next_step, work_behind
from reid_attack_bench.steps.step import Step


def step(name: str, *parents: Step, work: float = 1, after: tuple[str, ...] = ()) -> Step:
    return Step(
        "data", 1, name, {"name": name}, parents={str(i): p for i, p in enumerate(parents)}, after=after, work=work
    )


DATA = step("data", work=5)
SMALL = step("small", DATA, work=0)
LARGE = step("large", DATA, work=100)
GATED = step("gated", SMALL, work=7, after=(LARGE.key,))
STEPS = [DATA, SMALL, LARGE, GATED]


def labels(steps) -> list[str]:
    return [each.about for each in steps]


def test_work_behind_is_that_of_the_longest_path() -> None:
    behind = work_behind(STEPS)
    assert behind == {GATED.key: 7, LARGE.key: 107, SMALL.key: 8, DATA.key: 112}  # a step counts as 1 at least


def test_the_critical_path_goes_first_and_the_order_satisfies_the_needs() -> None:
    assert labels(by_work_behind(STEPS)) == ["data", "large", "small", "gated"]


def test_the_next_step_is_the_first_whose_needs_are_finished() -> None:
    order = by_work_behind(STEPS)
    unfinished = {each.key for each in STEPS}
    started = []
    while order:
        ready = next_step(order, unfinished)
        assert ready is not None
        started.append(ready)
        order.remove(ready)
        assert next_step([ready], unfinished) is ready  # it stays ready while it runs
        unfinished.discard(ready.key)
    assert labels(started) == ["data", "large", "small", "gated"]


def test_what_waits_for_an_unfinished_step_does_not_start() -> None:
    assert next_step([SMALL, LARGE], {DATA.key, SMALL.key, LARGE.key}) is None
    assert next_step([GATED], {LARGE.key, GATED.key}) is None  # `after` counts too
    assert next_step([GATED], {GATED.key}) is GATED  # what is stored is not among the unfinished


def test_a_failure_blocks_all_that_depends_on_it_for_the_same_reason() -> None:
    assert blocked(STEPS, {}) == {}
    assert blocked([SMALL, LARGE, GATED], {DATA.key: "no disk"}) == dict.fromkeys(
        (SMALL.key, LARGE.key, GATED.key), "no disk"
    )
    assert blocked([SMALL, GATED], {LARGE.key: "it died"}) == {GATED.key: "it died"}


def test_what_is_stored_behind_a_failed_gate_no_longer_counts() -> None:
    after = step("after", GATED)
    assert behind_gates([*STEPS, after], {LARGE.key: "it fell"}) == {GATED.key: "it fell", after.key: "it fell"}
    assert behind_gates([*STEPS, after], {SMALL.key: "it died"}) == {}, "an input that cannot be made again"
