"""The order in which steps start."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from reid_attack_bench.execute.schedule import Queue, behind_gates, needs, resident, work_behind
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


def started(queue: Queue) -> list[str]:
    """What a single worker runs, in order."""
    labels = []
    while queue:
        taken = queue.take()
        labels.append(taken.about)
        queue.finish(taken.key)
    return labels


def test_work_behind_is_that_of_the_longest_path() -> None:
    behind = work_behind(STEPS)
    assert behind == {GATED.key: 7, LARGE.key: 107, SMALL.key: 8, DATA.key: 112}  # a step counts as 1 at least


def test_the_critical_path_goes_first_and_the_order_satisfies_the_needs() -> None:
    assert started(Queue(STEPS)) == ["data", "large", "small", "gated"]


def test_of_equal_steps_the_first_of_the_plan_starts_first() -> None:
    assert started(Queue([step(name) for name in "cab"])) == ["c", "a", "b"]


def test_what_waits_for_an_unfinished_step_does_not_start() -> None:
    queue = Queue(STEPS)
    assert queue.take() is DATA
    assert not queue
    assert len(queue) == 3
    queue.finish(DATA.key)
    assert queue.take() is LARGE
    assert queue.take() is SMALL
    queue.finish(SMALL.key)
    assert not queue, "`after` counts too"
    queue.finish(LARGE.key)
    assert queue.take() is GATED
    assert not len(queue)


def test_needs_that_are_stored_do_not_hold_a_step_up() -> None:
    assert started(Queue([GATED])) == ["gated"]


def test_a_failure_removes_all_that_depends_on_it_for_the_same_reason() -> None:
    queue = Queue(STEPS)
    queue.take()
    assert queue.fail(DATA.key, "no disk") == dict.fromkeys((SMALL.key, LARGE.key, GATED.key), "no disk")
    assert not len(queue)
    queue = Queue([SMALL, LARGE, GATED])
    assert queue.take() is LARGE
    assert queue.fail(LARGE.key, "it died") == {GATED.key: "it died"}
    assert started(queue) == ["small"]


def test_a_step_whose_worker_was_lost_is_handed_out_again() -> None:
    queue = Queue(STEPS)
    lost = queue.take()
    queue.put_back(lost)
    assert started(queue) == ["data", "large", "small", "gated"]


def test_a_worker_is_given_what_needs_the_victim_that_it_has_loaded() -> None:
    victims = [Step("victim", 1, name, {"name": name}) for name in "ab"]
    forward = [
        Step("features", 1, f"{v.about}{i}", {"n": i}, parents={"victim": v}, work=10 + (v.about == "a"))
        for i in range(3)
        for v in victims
    ]
    long = Step("fit", 1, "long", {}, parents={"source": victims[0]}, work=1000)
    assert [resident(each) for each in (victims[0], forward[0], long)] == ["", victims[0].key, victims[0].key]
    queue = Queue([*forward, long])
    assert queue.take([victims[1].key]) is long, "the longest path comes before what is loaded"
    assert [queue.take([victims[1].key]).about for _ in range(4)] == ["b0", "b1", "b2", "a0"]


@given(st.data())
def test_every_step_is_handed_out_once_after_its_needs(data: st.DataObject) -> None:
    made: list[Step] = []
    for i in range(data.draw(st.integers(1, 12))):
        parents = data.draw(st.lists(st.sampled_from(made), max_size=3, unique_by=id)) if made else []
        made.append(step(str(i), *parents, work=data.draw(st.integers(0, 50))))
    queue, running, done, failed = Queue(made), [], set(), {}
    while len(queue) or running:
        if queue and (not running or data.draw(st.booleans())):
            taken = queue.take()
            assert done.issuperset(needs(taken))
            running.append(taken)
            continue
        over = running.pop(data.draw(st.integers(0, len(running) - 1)))
        if data.draw(st.integers(0, 5)):
            queue.finish(over.key)
            done.add(over.key)
        else:
            failed[over.key] = over.about
            failed.update(queue.fail(over.key, over.about))
    assert done | set(failed) == {each.key for each in made}
    for each in made:  # exactly what depends on a failure is not run
        blocked = any(key in failed for key in needs(each))
        assert not (blocked and each.key in done)
        assert each.key in done or blocked or failed[each.key] == each.about


def test_thousands_of_steps_are_scheduled_in_linear_time() -> None:
    def seconds(count: int) -> float:
        first = step("first")
        todo = [first, *(step(str(i), first) for i in range(count))]
        begun = time.process_time()
        queue = Queue(todo)
        while queue:
            queue.finish(queue.take().key)
        return time.process_time() - begun

    seconds(100)
    assert seconds(16_000) < 30 * max(seconds(2_000), 0.01)  # 64 times if it were quadratic


def test_what_is_stored_behind_a_failed_gate_no_longer_counts() -> None:
    after = step("after", GATED)
    assert behind_gates([*STEPS, after], {LARGE.key: "it fell"}) == {GATED.key: "it fell", after.key: "it fell"}
    assert behind_gates([*STEPS, after], {SMALL.key: "it died"}) == {}, "an input that cannot be made again"
