"""Steps clean-rank and rank: the gate, and refused queries."""

from __future__ import annotations

import pytest

from reid_attack_bench.attacks.noise import Noise
from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.errors import VictimError
from reid_attack_bench.steps.artefacts import read_ranking
from reid_attack_bench.steps.craft import craft_step
from reid_attack_bench.steps.embed import clean_step, features_step
from reid_attack_bench.steps.rank import clean_rank_step, rank_step
from reid_attack_bench.steps.step import Step
from tests.plugins.toy import ToyVictim
from tests.steps.conftest import attacked, toy


class RefusesAll(ToyVictim):
    def suspicion(self, images):
        return images.mean(dim=(1, 2, 3)) + 1


def under_attack(victim: Step, data: Step, epsilon: int) -> tuple[Step, Step]:
    """The clean ranking, and the one under noise."""
    clean = clean_step(victim, data, {}, ())
    craft = craft_step(attacked(Noise(), ThreatModel(epsilon)), [toy()], data, None, {}, 4, ())
    features = features_step(craft, victim, data, {}, ())
    return clean_rank_step(clean, victim, data, 0.0), rank_step(features, clean, victim, data)


def test_the_gate_of_a_victim_that_did_not_learn(lab, data) -> None:
    clean = clean_step(toy(), data, {}, ())
    step = clean_rank_step(clean, toy(), data, 100.1)
    assert step.config == {"protocol": "market1501", "expected_rank1": 100.1}
    with pytest.raises(VictimError, match=r"victim toy0: clean Rank-1 is .* below the expected 100\.1 %"):
        lab.run(step)


def test_an_attack_with_no_budget_changes_no_rank(lab, data) -> None:
    clean, attack = under_attack(toy(), data, 0)
    assert (clean.label, attack.label) == ("clean rank toy0 on plaza", "rank noise 0/255, plaza → toy0")
    rankings = [read_ranking(lab.run(step)) for step in (clean, attack)]
    assert (rankings[0].ap == rankings[1].ap).all()
    assert lab.facts[clean.key] == lab.facts[attack.key]
    facts = lab.facts[clean.key]
    assert facts["queries"] == 4
    assert facts["rank1_low"] <= facts["rank1"] <= facts["rank1_high"]


def test_a_refused_query_is_a_miss_and_gains_an_attack_nothing(lab, data) -> None:
    clean, attack = under_attack(toy(victim=RefusesAll()), data, 8)
    lab.run(clean)
    lab.run(attack)
    assert lab.facts[clean.key]["rank1"] == 0
    assert lab.facts[attack.key]["rejected"] == 100
    assert lab.facts[attack.key]["mAP"] == lab.facts[clean.key]["mAP"]
