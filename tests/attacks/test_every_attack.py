"""Every registered attack, ours or another package's, through the contract of attacks."""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from reid_attack_bench import registry
from reid_attack_bench.adversary.adaptive import adapt
from reid_attack_bench.adversary.budget import enforce
from reid_attack_bench.contracts import (
    Batch,
    FitContext,
    ReferenceImages,
    State,
    ThreatModel,
    TrainingData,
    Victim,
    to_float,
    weights_digest,
)
from reid_attack_bench.steps.passes import Chunked
from tests.plugins.toy import ToyVictim

EVERY = sorted(registry.available("attack"))

_GENERATOR = {"width": 4, "learning_rate": 0.05}
_MISRANKING = {
    **_GENERATOR, "steps": 4, "discriminator_width": 2, "residual_blocks": 1, "held_out": 0.4, "check_every": 2,
    "batch_identities": 3, "batch_instances": 2,
}  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {
    "gap": {**_GENERATOR, "steps": 4, "batch": 8},
    "misranking": _MISRANKING,
    "misranking-recommended": _MISRANKING,
}
"""Options for those that would take long with their defaults: they learn as much as the test needs."""

SECONDS = 5.0
"""Of computing, that one attack may take to learn, and to craft six images."""

THREATS = [ThreatModel(0), ThreatModel(4), ThreatModel(8), ThreatModel(8, pixels=60), ThreatModel(0, pixels=60)]
NEEDS = {"gradients", "logits", "labels", "gallery"}

RNG = np.random.default_rng(0)
CLEAN = RNG.integers(0, 256, (6, 32, 16, 3), dtype=np.uint8)
PEOPLE = np.arange(6) // 2
GALLERY = ReferenceImages(
    RNG.integers(0, 256, (5, 32, 16, 3), dtype=np.uint8), np.arange(5) // 2, np.zeros(5, np.int64)
)
TRAINING = TrainingData(
    "toys",
    np.clip(
        RNG.integers(60, 196, (10, 1, 1, 1, 3)) + RNG.integers(-20, 21, (10, 4, 32, 16, 3)), 0, 255
    ).astype(np.uint8).reshape(-1, 32, 16, 3),
    np.repeat(np.arange(10), 4),
    np.tile(np.arange(4), 10),
)  # fmt: skip


class Source(ToyVictim):
    """A source that gives what an attack has declared to need, for a limited time."""

    def __init__(self, name: str, needs: frozenset[str]) -> None:
        super().__init__(classes=10)
        self.attack, self.needs = name, needs
        self.deadline = time.process_time() + SECONDS
        self.eval().requires_grad_(False)

    def embed(self, images):
        self.in_time()
        return super().embed(images if "gradients" in self.needs else images.detach())

    def logits(self, images):
        assert "logits" in self.needs, f"{self.attack} asks for logits, which is not in its needs"
        return super().logits(images)

    def in_time(self) -> None:
        assert time.process_time() < self.deadline, (
            f"{self.attack} computes for more than {SECONDS:g} s with {SMALL.get(self.attack) or 'its defaults'}: "
            f"give it small options in SMALL of {__name__}"
        )


def build(name: str) -> Any:
    return registry.find("attack", name).build(SMALL.get(name, {}))


def source_of(name: str) -> Source:
    return Source(name, build(name).needs)


@functools.cache
def learnt(name: str, pixels: int | None = None, epsilon: int = 8) -> State | None:
    """What the attack learns within a budget, None for one that learns nothing."""
    attack, source = build(name), source_of(name)
    if not hasattr(attack, "fit"):
        return None
    torch.manual_seed(0)  # as the bench does
    context = FitContext(
        torch.device("cpu"), torch.Generator().manual_seed(0), progress=lambda done, total, note: source.in_time()
    )
    return attack.fit(source, TRAINING, ThreatModel(epsilon, pixels), context)


def batch_for(attack: Any) -> Batch:
    """The images, and no more than the attack's needs declare."""
    labels = torch.from_numpy(PEOPLE) if "labels" in attack.needs else None
    return Batch(to_float(CLEAN), labels, GALLERY if "gallery" in attack.needs else None)


def crafted(
    name: str, threat: ThreatModel, source: Victim | None, seed: int = 0, generator: torch.Generator | None = None
) -> torch.Tensor:
    attack = build(name)
    state = learnt(name, threat.pixels, threat.epsilon)
    learned = {} if state is None else {"state": state}
    generator = generator or torch.Generator().manual_seed(seed)
    return attack.craft(source, batch_for(attack), threat, generator, **learned)


def test_there_are_attacks_and_no_row_for_one_that_is_not() -> None:
    assert set(SMALL) <= set(EVERY)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: f"{threat.epsilon}-{threat.pixels}")
def test_budget_type_and_range(name: str, threat: ThreatModel) -> None:
    adversarial = crafted(name, threat, source_of(name))
    assert adversarial.dtype == torch.float32
    assert adversarial.shape == (6, 3, 32, 16)
    assert not adversarial.requires_grad
    assert 0 <= adversarial.min() <= adversarial.max() <= 1
    stored = enforce(adversarial, CLEAN, threat, attack=name)
    assert (stored != CLEAN).any() == (threat.epsilon > 0), "an attack changes something, if it may"


@pytest.mark.parametrize("name", EVERY)
def test_its_generator_decides_and_nothing_else(name: str) -> None:
    results, states = [], []
    for seed, elsewhere in ((0, 0), (0, 1), (1, 1)):
        generator = torch.Generator().manual_seed(seed)
        before = generator.get_state()
        torch.manual_seed(elsewhere)
        np.random.seed(elsewhere)
        results.append(crafted(name, ThreatModel(8), source_of(name), generator=generator))
        states.append(not torch.equal(before, generator.get_state()))
    assert torch.equal(results[0], results[1]), "same seed, same bytes"
    assert len(set(states)) == 1
    assert torch.equal(results[0], results[2]) != states[0], "another seed differs, if it draws anything"


@pytest.mark.parametrize("name", EVERY)
def test_inputs_and_source_are_left_as_they_were(name: str) -> None:
    attack, source, threat = build(name), source_of(name), ThreatModel(8)
    batch, state = batch_for(attack), learnt(name)
    copies = {key: value.clone() for key, value in (state or {}).items()}
    references, digest = GALLERY.images.copy(), weights_digest(source)
    attack.craft(source, batch, threat, torch.Generator(), **({} if state is None else {"state": state}))
    assert torch.equal(batch.images, to_float(CLEAN))
    assert batch.identities is None or torch.equal(batch.identities, torch.from_numpy(PEOPLE))
    assert np.array_equal(GALLERY.images, references)
    assert all(torch.equal(value, copies[key]) for key, value in (state or {}).items())
    assert weights_digest(source) == digest
    assert not any(module.training for module in source.modules())
    assert all(not p.requires_grad and p.grad is None for p in source.parameters())
    for module in source.modules():
        hooks = [value for key, value in vars(module).items() if key.endswith("_hooks")]
        assert not any(hooks), "no hooks are left behind"
    assert {"embed", "logits", "purify", "suspicion"}.isdisjoint(vars(source)), "no method is left replaced"


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_gives_what_its_parts_give(name: str) -> None:
    """Where memory is short the bench gives the source a part of the batch at a time."""
    whole = crafted(name, ThreatModel(8), source_of(name))
    parts = crafted(name, ThreatModel(8), Chunked(source_of(name), 2))
    same = (whole - parts).abs() < 0.5 / 255
    assert same.float().mean() > 0.999, "a gradient of zero may round to either side, no more"


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("randomised", [False, True])
def test_it_works_on_an_adapted_source(name: str, randomised: bool) -> None:
    source, threat = source_of(name), ThreatModel(8)
    adversarial = crafted(name, threat, adapt(source, 2, randomised=randomised))
    assert (enforce(adversarial, CLEAN, threat, attack=name) != CLEAN).any()
    assert "purify" not in vars(source)


@pytest.mark.parametrize("name", EVERY)
def test_it_needs_what_it_declares(name: str) -> None:
    """The source of every test here has no logits or gradients, the batch no labels or references, if not declared."""
    attack = build(name)
    assert set(attack.needs) <= NEEDS
    if not attack.needs:
        assert torch.equal(crafted(name, ThreatModel(8), None), crafted(name, ThreatModel(8), source_of(name)))


@pytest.mark.parametrize("name", EVERY)
def test_what_it_learns_is_repeated_and_stored(name: str) -> None:
    state = learnt(name)
    if state is None:
        return
    source = source_of(name)
    digest = weights_digest(source)
    again = learnt.__wrapped__(name)
    assert again is not None
    assert state.keys() == again.keys()
    assert all(torch.equal(value, again[key]) for key, value in state.items())
    assert all(isinstance(value, torch.Tensor) and value.device.type == "cpu" for value in state.values())
    stored = load(save({key: value.contiguous() for key, value in state.items()}))
    attack, batch = build(name), batch_for(build(name))
    crafts = [attack.craft(source, batch, ThreatModel(8), torch.Generator(), state=each) for each in (state, stored)]
    assert torch.equal(*crafts)
    assert weights_digest(source) == digest


def test_an_attack_that_takes_long_is_told_what_to_do() -> None:
    source = Source("slow", frozenset({"gradients"}))
    source.deadline = 0.0
    with pytest.raises(
        AssertionError, match="slow computes for more than 5 s with its defaults: give it small options"
    ):
        source.embed(to_float(CLEAN))
    with pytest.raises(AssertionError, match="slow asks for logits, which is not in its needs"):
        source.logits(to_float(CLEAN))
