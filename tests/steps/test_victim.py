"""Step victim: ready, trained and defended victims."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch

from reid_attack_bench.contracts import Defence, LearnedDefence, WrappedVictim
from reid_attack_bench.errors import VictimError
from reid_attack_bench.steps.step import Configured
from reid_attack_bench.steps.victim import defended_step, ready_step, trained_step
from tests.plugins.toy import NanVictim, ToyRecipe, ToyVictim
from tests.steps.conftest import COUNTS, toy


@dataclass(frozen=True)
class Named(Defence):
    def defend(self, victim, state=None):
        assert state is None
        return WrappedVictim(victim, "named")


@dataclass(frozen=True)
class Threshold(LearnedDefence):
    fit_work = 5.0

    def fit(self, victim, data, context):
        images, _ = data.batch(range(len(data.images)))
        return {"mean": victim.embed(images).mean().detach()}

    def defend(self, victim, state=None):
        return WrappedVictim(victim, f"threshold {float(state['mean']):.6f}")


def test_a_ready_victim_is_its_weights_and_leaves_a_card(lab) -> None:
    step = toy()
    card = json.loads((lab.run(step) / "card.json").read_text())
    assert step.label == "victim toy0"
    assert card == lab.facts[step.key]
    assert card["weights"] == step.config["weights"] != toy(1).config["weights"]
    assert (card["distance"], card["detector"], card["found_randomised"]) == ("cosine", "", False)
    assert lab.workspace.victim(step.key) is step.plugin


def test_a_trained_victim_is_loaded_from_its_weights(lab, data) -> None:
    step = trained_step("toy@plaza", Configured("toy", "v1", {"steps": 2}, ToyRecipe(steps=2)), data, seed=3)
    assert step.label == "train toy@plaza"
    assert step.config["seed"] == 3
    assert step.work == 3.0 * COUNTS["train"]
    assert (lab.run(step) / "weights.safetensors").is_file()
    victim = lab.workspace.victim(step.key)
    assert victim.trained_on == "plaza"
    assert not any(parameter.requires_grad for parameter in victim.parameters())


def test_a_defence_that_does_not_learn_has_neither_data_nor_seed(lab, data) -> None:
    inner = toy()
    step = defended_step("named", Configured("named", "v1", {}, Named()), inner, data, seed=3)
    assert step.label == "victim named"
    assert set(step.parents) == {"victim"}
    assert "seed" not in step.config
    assert not (lab.run(step) / "weights.safetensors").exists()
    assert lab.facts[step.key]["defence"] == "named"


def test_a_defence_that_learns_is_given_the_victim_and_its_data(lab, data) -> None:
    inner = toy()
    step = defended_step("learned", Configured("learned", "v1", {}, Threshold()), inner, data, seed=3)
    assert step.label == "train learned"
    assert set(step.parents) == {"victim", "data"}
    assert (step.config["seed"], step.work) == (3, 5.0)
    lab.run(step)
    images = torch.from_numpy(lab.workspace.splits(data.key)["train"].images.copy()).permute(0, 3, 1, 2) / 255
    mean = float(lab.workspace.victim(inner.key).embed(images).mean())
    assert float(lab.facts[step.key]["defence"].split()[1]) == pytest.approx(mean, abs=1e-5)


def test_a_victim_that_breaks_its_contract_fails(lab) -> None:
    with pytest.raises(VictimError, match="NanVictim: embed returned NaN or infinity for image 0"):
        lab.run(ready_step("nan", Configured("nan", "v1", {}, NanVictim())))
    assert isinstance(toy().plugin, ToyVictim)
