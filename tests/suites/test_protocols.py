"""Protocols in suites: fixed attacks, their names in every row, and when a name is lost."""

from __future__ import annotations

import pytest

from reid_attack_bench.errors import BenchError
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.suites import parse, protocols
from tests.conftest import TOY

SMALL = "reid-standard-2-small"


def test_a_suite_runs_its_protocol_and_its_own_attacks(tiny) -> None:
    tiny |= {"protocol": SMALL, "attacks": {"noise": {}}}
    suite = parse.parse(tiny)
    own = {attack.label: attack.protocol for attack in suite.attacks}
    assert own == {**dict.fromkeys(protocols.attacks(SMALL), SMALL), "noise": ""}
    cells = make_plan(suite).cells
    assert {cell.protocol for cell in cells} == {SMALL, ""}
    assert {cell.protocol for cell in cells if cell.attack == "noise"} == {""}
    assert parse.from_json(parse.to_json(suite)) == suite
    del tiny["attacks"]
    assert {attack.protocol for attack in parse.parse(tiny).attacks} == {SMALL}


def test_another_protocol_takes_the_place_of_the_first(tiny) -> None:
    tiny |= {"protocol": SMALL, "attacks": {"noise": {}}}
    suite = parse.with_protocol(parse.parse(tiny), "reid-standard-2")
    assert suite.protocol == "reid-standard-2"
    assert {attack.protocol for attack in suite.attacks} == {"reid-standard-2", ""}
    assert suite == parse.parse({**tiny, "protocol": "reid-standard-2"})


def test_a_changed_protocol_loses_its_name(tiny) -> None:
    suite = parse.parse({**tiny, "protocol": SMALL}).with_epsilons([2])
    assert suite.protocol == ""
    assert {attack.protocol for attack in suite.attacks} == {""}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "reid-standard"}, "no protocol is called 'reid-standard': did you mean 'reid-standard-2'"),
        ({"protocol": SMALL, "attacks": {"std-noise": {"use": "noise"}}}, "attacks.std-noise: the protocol .* choose"),
    ],
)
def test_mistakes(tiny, changes, message) -> None:
    with pytest.raises(BenchError, match=message):
        parse.parse({**tiny, **changes})


def test_adaptive_attacks_of_a_protocol_are_for_victims_that_may_be_defended(tiny) -> None:
    def adapted(**victim: object) -> set[str]:
        document = {**tiny, "protocol": SMALL, "attacks": {"noise": {}}, "victims": {"mine": victim}}
        return {cell.source for cell in make_plan(parse.parse(document)).cells if cell.adaptive}

    assert adapted(use=f"{TOY}:ToyVictim") == {"mine"}, "a model that comes trained may hide a defence"
    assert adapted(use=f"{TOY}:ToyRecipe", train_on=["plaza"]) == {"mine@plaza"}, "unless it says otherwise"
    assert adapted(use="torchreid", train_on=["plaza"]) == set()


def test_relations_of_an_attack_restrict_its_cells_only(tiny) -> None:
    victims = {"mine": {"use": f"{TOY}:ToyRecipe", "train_on": ["plaza"]}, "other": {"use": f"{TOY}:ToyVictim"}}
    attacks = {"noise": {}, "own": {"use": "metric_fgsm", "relations": "white-box"}}
    suite = parse.parse({**tiny, "victims": victims, "attacks": attacks})
    relations = {label: {cell.relation for cell in make_plan(suite).cells if cell.attack == label} for label in attacks}
    assert relations["own"] == {"white-box"} < relations["noise"]
    assert parse.from_json(parse.to_json(suite)) == suite
