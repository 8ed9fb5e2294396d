"""Base classes of plug-ins: defaults, settings that override them, and what a wrapped victim declares."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

import pytest
import torch

from reid_attack_bench.contracts import (
    Attack,
    Defence,
    LearnedAttack,
    LearnedDefence,
    Recipe,
    Victim,
    WrappedVictim,
)
from tests.plugins.toy import ToyRecipe, ToyVictim


@dataclass(frozen=True)
class Plain(Attack):
    needs: ClassVar[frozenset[str]] = frozenset()

    def craft(self, source, batch, threat, generator, state=None):
        return batch.images


@dataclass(frozen=True)
class Iterated(Plain):
    steps: int = 7

    @property
    def craft_work(self) -> float:
        return 3.0 * self.steps


def test_defaults_of_an_attack_are_no_settings() -> None:
    attack = Plain()
    assert (attack.version, attack.citation, attack.family, attack.steps, attack.craft_work) == (None, "", "", 1, 3.0)
    assert fields(attack) == ()


def test_a_setting_overrides_a_default() -> None:
    assert Iterated().steps == 7
    assert Iterated(steps=2).craft_work == 6.0
    assert [field.name for field in fields(Iterated)] == ["steps"]


@pytest.mark.parametrize("base", [Attack, LearnedAttack, Recipe, Defence, LearnedDefence])
def test_a_base_cannot_be_made_without_its_methods(base: type) -> None:
    with pytest.raises(TypeError, match="abstract"):
        base()


def test_defaults_of_recipes_and_defences() -> None:
    class Calibrated(LearnedDefence):
        def fit(self, victim, data, context):
            return {}

        def defend(self, victim, state=None):
            return victim

    defence = Calibrated()
    assert (defence.version, defence.differentiable, defence.purifies, defence.fit_work) == (None, True, False, 1e4)
    assert (ToyRecipe().version, ToyRecipe().epochs, ToyRecipe().differentiable) == (None, 1, True)


def test_a_victim_classifies_if_its_class_has_logits() -> None:
    class Mute(Victim):
        pass

    class Silenced(ToyVictim):
        classifies = False

    class Deeper(Silenced):
        pass

    class Logits:
        def logits(self, images):
            return images.flatten(1)

    class Mixed(Logits, Mute):
        pass

    assert ToyVictim.classifies
    assert ToyVictim().classifies
    assert Mixed.classifies
    assert not Victim.classifies
    assert not Mute.classifies
    assert not Silenced.classifies
    assert not Deeper.classifies


def test_a_wrapped_victim_declares_what_the_inner_one_does() -> None:
    inner = ToyVictim()
    inner.citation, inner.max_batch, inner.defence, inner.trained_on = "arXiv 0000.00000", 3, "jpeg", "plaza"
    inner.randomised, inner.differentiable, inner.adapted, inner.name = True, False, True, "toy"
    wrapped = WrappedVictim(inner, "noise")
    assert wrapped.defence == "jpeg + noise"
    for name in set(Victim.__annotations__) - {"defence", "version"}:
        assert getattr(wrapped, name) == getattr(inner, name), name
    assert WrappedVictim(Victim()).classifies is False
    assert WrappedVictim(inner).defence == "jpeg"
    assert torch.equal(wrapped.embed(torch.ones(1, 3, 64, 32)), inner.embed(torch.ones(1, 3, 64, 32)))
