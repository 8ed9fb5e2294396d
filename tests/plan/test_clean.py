"""Gates: the clean ranking at home, and published values. Nothing is run."""

from __future__ import annotations

import pytest

from reid_attack_bench import registry
from reid_attack_bench.contracts import PublishedValues
from reid_attack_bench.data import catalogue
from reid_attack_bench.errors import BenchError
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.suites import parse
from tests.conftest import TOY
from tests.plugins.toy import ToyVictim

DEFENDED = TOY.parent / "defended.py"


def plugin(name: str, seed: int, published: dict[str, tuple[float, float]], trained_on: str = "") -> registry.Plugin:
    victim = ToyVictim(seed=seed)
    victim.published = {place: PublishedValues(*values) for place, values in published.items()}
    victim.trained_on = trained_on
    return registry.Plugin("victim", name, victim, f"v{seed}", "memory")


def planned(document: dict, live: dict[str, registry.Plugin], **only: list[str]) -> Plan:
    document["victims"] = {name: {"use": name} for name in live} | document.pop("defended", {})
    document["attacks"] = {"pgd": {}, "learner": {"use": f"{TOY}:Learner"}}
    return make_plan(parse.parse(document), only=only, live=live)


def figures(plan: Plan, victim: str) -> dict[str, str]:
    """Data set → key of the comparison of `victim` there."""
    found = {step.key: step.about.partition(" on ") for step in plan.steps.values() if step.kind == "reproduce"}
    return {place: key for key, (name, _, place) in found.items() if name == victim}


def test_a_victim_waits_for_its_published_values_wherever_it_is_attacked(tiny) -> None:
    plan = planned(tiny, {"known": plugin("known", 0, {"plaza": (90, 80)}), "other": plugin("other", 1, {})})
    (gate,) = figures(plan, "known").values()
    assert plan.steps[gate].label == "reproduce clean figure of known on plaza"
    assert plan.steps[gate].config == {"published": {"rank1": 90, "mAP": 80}}
    assert not figures(plan, "other")
    assert gate in plan.goals, "it is asked for, even where all else is stored"
    for row in plan.clean:
        assert row.figure_keys == ((gate,) if row.victim == "known" else ())
        waits = (row.victim, row.dataset) == ("known", "station")
        assert plan.steps[row.features_key].after == ((gate,) if waits else ())
    for cell in plan.cells:
        assert (gate in plan.steps[cell.craft_key].after) == (cell.source == "known")
        assert (gate in plan.steps[cell.features_key].after) == (cell.target == "known")
    for step in plan.steps.values():
        if step.kind == "fit":
            assert (gate in step.after) == (step.parents["source"].about == "known")


def test_published_values_change_no_other_key(tiny) -> None:
    live = {"known": plugin("known", 0, {})}
    before = planned(dict(tiny), live)
    after = planned(tiny, {"known": plugin("known", 0, {"plaza": (90, 80)})})
    assert set(before.steps) == set(after.steps) - set(figures(after, "known").values())
    assert before.cells == after.cells


def test_each_data_set_with_published_values_is_a_gate_and_home_is_one_before_them(tiny) -> None:
    plan = planned(tiny, {"known": plugin("known", 0, {"plaza": (90, 80), "station": (70, 60)}, trained_on="plaza")})
    gates = figures(plan, "known")
    assert set(gates) == {"plaza", "station"}
    home, away = sorted(plan.clean, key=lambda row: row.dataset)
    assert (home.home, away.home) == (True, False)
    assert plan.steps[home.features_key].after == ()
    assert plan.steps[away.features_key].after == (home.rank_key,), "not for its own comparison"
    for cell in plan.cells:
        assert set(plan.steps[cell.craft_key].after) == {home.rank_key, *gates.values()}


def test_a_restricted_plan_keeps_the_comparisons_of_its_cells(tiny) -> None:
    live = {"known": plugin("known", 0, {"plaza": (90, 80)}), "other": plugin("other", 1, {})}
    plan = planned(tiny, live, attack=["pgd"], dataset=["station"], source=["known"], target=["other"])
    assert len(plan.cells) == 1
    assert {(row.victim, row.dataset) for row in plan.clean} == {("other", "station"), ("known", "plaza")}


def test_a_defence_waits_for_the_victim_inside_it(tiny) -> None:
    tiny["defended"] = {"soft": {"use": f"{DEFENDED}:Pretend", "defends": "known"}}
    plan = planned(tiny, {"known": plugin("known", 0, {"plaza": (90, 80)})}, source=["soft"], target=["soft"])
    gates = figures(plan, "known")
    assert set(gates) == {"plaza"}
    assert not figures(plan, "soft"), "nothing was published for it"
    assert all(set(gates.values()) <= set(plan.steps[cell.craft_key].after) for cell in plan.cells)
    assert {row.figure_keys for row in plan.clean} == {tuple(gates.values())}


@pytest.mark.parametrize(
    ("published", "says"),
    [
        (("market1501",), "published on market1501, which is not in this suite (known)."),
        (("market1501", "msmt17"), "published on market1501 and msmt17, which are not in this suite (known)."),
        (("plaza", "msmt17"), ""),
    ],
)
def test_a_figure_that_cannot_be_checked_is_noted(tiny, published: tuple[str, ...], says: str) -> None:
    live = {"known": plugin("known", 0, dict.fromkeys(published, (90, 80))), "other": plugin("other", 1, {})}
    assert planned(tiny, live).notes == ((f"Clean figure not checked: {says}",) if says else ())


def test_another_data_set_of_the_same_name_is_not_compared(tiny, monkeypatch) -> None:
    source = catalogue.source

    def copied(*arguments, **options):
        made = source(*arguments, **options)
        object.__setattr__(made, "genuine", False)
        return made

    monkeypatch.setattr(catalogue, "source", copied)
    plan = planned(tiny, {"known": plugin("known", 0, {"plaza": (90, 80)})})
    assert not figures(plan, "known")
    assert plan.notes == (
        "Clean figure not checked: published on plaza, but what is read here by that name is another data set (known).",
    )


def test_published_values_have_names(tiny) -> None:
    known = plugin("known", 0, {})
    known.factory.published = {"plaza": (90, 80)}
    with pytest.raises(BenchError, match=r"victim known: published\['plaza'\] must be PublishedValues.*not \(90, 80\)"):
        planned(tiny, {"known": known})
