"""Attacks on several sources at once: what is planned, and what is refused. Nothing is run."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from reid_attack_bench.attacks.pgd import PGD
from reid_attack_bench.errors import BenchError
from reid_attack_bench.plan.attacks import on_source, why_impossible
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.steps.step import source_keys
from reid_attack_bench.suites import parse
from tests.conftest import TOY
from tests.plan.test_planner import victim
from tests.steps.conftest import attacked

BOTH = "toy@plaza+toy@station"


@pytest.fixture
def three(tiny) -> dict:
    """The tiny suite with a third victim, which comes trained."""
    tiny["victims"]["ready"] = {"use": f"{TOY}:ToyVictim"}
    tiny["attacks"] = {"pgd": {"options": {"steps": 2}}}
    return tiny


def planned(document: dict, **only: list[str]) -> Plan:
    return make_plan(parse.parse(document), only=only)


def sources(plan: Plan, craft_key: str) -> list[str]:
    return [plan.steps[key].about for key in source_keys(plan.steps[craft_key])]


def test_where_no_sources_are_given_nothing_changes(three) -> None:
    before = planned(three)
    three["attacks"]["pgd"]["sources"] = []
    assert planned(three).steps.keys() == before.steps.keys()
    assert {len(source_keys(step)) for step in before.steps.values() if step.kind == "craft"} == {1}


@pytest.mark.parametrize("given", [["toy"], ["toy@plaza", "toy@station"], ["toy@station", "toy@plaza"], "toy"])
def test_sources_are_crafted_on_at_once_in_the_order_of_the_suite(three, given) -> None:
    three["attacks"]["pgd"]["sources"] = given
    plan = planned(three)
    assert len(plan.cells) == 3 * 2
    for cell in plan.cells:
        assert cell.source == BOTH
        assert sources(plan, cell.craft_key) == ["toy@plaza", "toy@station"]
        assert cell.access == ("white-box" if cell.target.startswith("toy") else "transfer")
        gates = {row.rank_key for row in plan.clean if row.home and row.victim.startswith("toy")}
        assert set(plan.steps[cell.craft_key].after) == gates
    crafts = [step for step in plan.steps.values() if step.kind == "craft"]
    assert len(crafts) == 2, "one for each data set"
    assert crafts[0].label == f"craft pgd 8/255 on {BOTH}, plaza"
    relations = {(cell.target, cell.dataset): cell.relation for cell in plan.cells}
    assert relations == {
        ("toy@plaza", "plaza"): "white-box",
        ("toy@plaza", "station"): "",
        ("toy@station", "plaza"): "",
        ("toy@station", "station"): "white-box",
        ("ready", "plaza"): "cross-model",
        ("ready", "station"): "cross-model",
    }


def test_one_source_among_sources_is_the_same_as_that_source_alone(three) -> None:
    alone = {cell.craft_key for cell in planned(three, source=["ready"]).cells}
    three["attacks"]["pgd"]["sources"] = ["ready"]
    plan = planned(three)
    assert {cell.craft_key for cell in plan.cells} == alone
    assert {cell.source for cell in plan.cells} == {"ready"}


def test_others_never_include_the_target(three) -> None:
    three["victims"]["twin"] = {"use": f"{TOY}:ToyVictim", "roles": "target"}  # ready under another label
    three["victims"]["mine"] = {"use": f"{TOY}:ToyVictim", "options": {"seed": 1}, "roles": ["white-box", "target"]}
    three["attacks"]["pgd"]["sources"] = "others"
    plan = planned(three)
    every = {"toy@plaza", "toy@station", "ready"}
    assert {cell.target for cell in plan.cells} == every | {"twin", "mine"}
    for cell in plan.cells:
        assert cell.source == f"all but {cell.target}"
        assert cell.access == "transfer"
        assert cell.relation != "white-box"
        assert set(sources(plan, cell.craft_key)) == every - {cell.target} - (
            {"ready"} if cell.target == "twin" else set()
        )
        assert plan.steps[plan.steps[cell.features_key].inputs["victim"]].key not in source_keys(
            plan.steps[cell.craft_key]
        )


def test_others_are_those_on_which_the_attack_can_be_crafted(three) -> None:
    three["victims"]["blind"] = {"use": f"{TOY}:TargetOnly"}
    three["attacks"]["pgd"]["sources"] = "others"
    plan = planned(three)
    assert not [cell for cell in plan.cells if cell.impossible]
    found = {cell.target: sources(plan, cell.craft_key) for cell in plan.cells}
    assert found["blind"] == ["toy@plaza", "toy@station", "ready"]
    assert found["ready"] == ["toy@plaza", "toy@station"]


def test_why_several_sources_are_impossible(three) -> None:
    three["victims"]["blind"] = {"use": f"{TOY}:TargetOnly"}
    three["attacks"]["pgd"]["sources"] = ["ready", "blind"]
    cells = planned(three).cells
    assert {cell.impossible for cell in cells} == {"blind gives no gradients, so it can only be a target of pgd"}
    assert {cell.craft_key for cell in cells} == {""}


def test_an_attack_on_logits_takes_those_of_all_members_or_its_other_form() -> None:
    @dataclass(frozen=True)
    class Plain(PGD):
        needs = frozenset({"gradients"})

    @dataclass(frozen=True)
    class Both(PGD):
        takes_members = False

        def without_logits(self):
            return Plain()

    @dataclass(frozen=True)
    class Alone(PGD):
        takes_members = False

    classifier, other = victim("a"), victim("b", classifies=False)
    assert on_source(attacked(PGD()), classifier, classifier).needs == ("gradients", "logits")
    assert "b has no logits" in why_impossible(attacked(PGD()), classifier, other)
    assert "which it cannot take from several sources" in why_impossible(attacked(Alone()), classifier, classifier)
    assert why_impossible(attacked(Alone()), classifier) == ""
    for members in ((classifier, classifier), (classifier, other)):
        run = on_source(attacked(Both()), *members)
        assert run.needs == ("gradients",)
        assert why_impossible(run, *members) == ""


def test_a_learned_attack_is_fitted_on_several_sources_at_once(three) -> None:
    three["attacks"] = {"learner": {"use": f"{TOY}:Learner", "sources": ["ready", "toy"]}}
    plan = planned(three)
    (fit,) = [step for step in plan.steps.values() if step.kind == "fit"]
    assert [plan.steps[key].about for key in source_keys(fit)] == ["toy@plaza", "toy@station", "ready"]
    assert fit.parents["data"].about == "plaza", "the training data of the first"
    assert {plan.steps[cell.craft_key].inputs["fit"] for cell in plan.cells} == {fit.key}


def test_with_access_to_the_sources_alone_they_are_the_targets(three) -> None:
    three["attacks"]["pgd"] |= {"sources": ["toy@plaza", "ready"], "access": "white-box"}
    assert {cell.target for cell in planned(three).cells} == {"toy@plaza", "ready"}


def test_a_restriction_names_several_sources_by_their_label(three) -> None:
    three["attacks"]["joint"] = {"use": "pgd", "sources": ["toy"]}
    three["attacks"]["rest"] = {"use": "pgd", "sources": "others"}
    assert {cell.attack for cell in planned(three, source=[BOTH]).cells} == {"joint"}
    assert {cell.target for cell in planned(three, source=["all but ready"]).cells} == {"ready"}
    assert {cell.attack for cell in planned(three, source=["ready"]).cells} == {"pgd"}


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        ({"sources": ["redy"]}, r"attacks.pgd.sources: no source 'redy' in this suite: .*ready"),
        ({"sources": ["toy@campus"]}, "no source 'toy@campus'"),
        ({"sources": "other"}, "no source 'other' in this suite: .*others"),
        ({"sources": ["toy", "toy"]}, "names a source twice: toy, toy"),
        ({"sources": ["others", "toy"]}, "others is all sources but the target"),
        ({"sources": "others", "access": "white-box"}, "others is all sources but the target"),
        ({"use": f"{TOY}:Asker", "sees": "embedding", "queries": 5, "sources": "toy"}, "sources needs sees: gradients"),
        ({"sources": 3}, "sources"),
    ],
)
def test_wrong_sources_are_refused(three, attack: dict, message: str) -> None:
    three["attacks"] = {"pgd": attack}
    with pytest.raises(BenchError, match=message):
        planned(three)


def test_a_victim_is_not_called_as_several_sources_are(three) -> None:
    three["victims"] = {name: {"use": f"{TOY}:ToyVictim"} for name in ("a", "b", "a+b")}
    three["attacks"]["pgd"]["sources"] = ["a", "b"]
    with pytest.raises(BenchError, match=r"these are called a\+b, as a victim is"):
        planned(three)


def test_sources_survive_json(three) -> None:
    three["attacks"]["pgd"]["sources"] = ["toy", "ready"]
    suite = parse.parse(three)
    assert suite.attacks[0].sources == ("toy", "ready")
    assert parse.from_json(parse.to_json(suite)) == suite
    document = json.loads(parse.to_json(suite))
    del document["attacks"][0]["sources"]
    assert parse.from_plain(document).attacks[0].sources == (), "as a manifest of an earlier version has it"
