"""Every registered attack, ours or another package's, through the contract of attacks.

An attack is handed what the bench hands it: the source behind `adversary.access.Granted`, or, if it asks queries, the
counted answers of an oracle.
"""

from __future__ import annotations

import functools
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from reid_attack_bench import registry
from reid_attack_bench.adversary.access import Asker, Counted, Gallery, Granted
from reid_attack_bench.adversary.adaptive import adapt
from reid_attack_bench.adversary.budget import enforce
from reid_attack_bench.contracts import (
    Attack,
    Batch,
    FitContext,
    LearnedAttack,
    QueryAttack,
    ReferenceImages,
    State,
    Targets,
    ThreatModel,
    TrainingData,
    Victim,
    distances,
    to_float,
    weights_digest,
)
from reid_attack_bench.errors import AccessError, BenchError
from reid_attack_bench.steps.passes import Chunked
from tests.conftest import TOY
from tests.plugins.toy import ToyVictim

FORMS = ("embedding", "distances", "ranking")

TOYS = {f"toy-{form}": (f"{TOY}:Asker", {"form": form}) for form in FORMS}
"""Attacks that are not registered: name → (key, options). A query attack for each form of answer."""

EVERY = [*sorted(registry.available("attack")), *TOYS]

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

QUERIES = 30
"""Queries per image of a query attack."""

THREATS = [ThreatModel(0), ThreatModel(4), ThreatModel(8), ThreatModel(8, pixels=60), ThreatModel(0, pixels=60)]
NEEDS = {"gradients", "logits", "labels", "gallery", *FORMS}

RNG = np.random.default_rng(0)
CLEAN = RNG.integers(0, 256, (6, 32, 16, 3), dtype=np.uint8)
PEOPLE = np.arange(6) // 2
GALLERY = ReferenceImages(
    RNG.integers(0, 256, (5, 32, 16, 3), dtype=np.uint8), np.arange(5) // 2, np.zeros(5, np.int64)
)
GUIDES = ReferenceImages(RNG.integers(0, 256, (6, 32, 16, 3), dtype=np.uint8), np.arange(6) // 2, np.zeros(6, np.int64))
TARGETS = Targets(torch.from_numpy((PEOPLE + 1) % 3), GUIDES)
TRAINING = TrainingData(
    "toys",
    np.clip(
        RNG.integers(60, 196, (10, 1, 1, 1, 3)) + RNG.integers(-20, 21, (10, 4, 32, 16, 3)), 0, 255
    ).astype(np.uint8).reshape(-1, 32, 16, 3),
    np.repeat(np.arange(10), 4),
    np.tile(np.arange(4), 10),
)  # fmt: skip


class Timed(ToyVictim):
    """A model for the attack `name`, for a limited time."""

    def __init__(self, name: str) -> None:
        super().__init__(classes=10)
        self.attack = name
        self.deadline = time.process_time() + SECONDS
        self.eval().requires_grad_(False)

    def embed(self, images):
        self.in_time()
        return super().embed(images)

    def in_time(self) -> None:
        assert time.process_time() < self.deadline, (
            f"{self.attack} computes for more than {SECONDS:g} s with {SMALL.get(self.attack) or 'its defaults'}: "
            f"give it small options in SMALL of {__name__}"
        )


@functools.cache
def build(name: str) -> Attack:
    key, options = TOYS.get(name, (name, SMALL.get(name, {})))
    attack = registry.find("attack", key).build(options)
    assert isinstance(attack, Attack)
    return attack


def source_of(name: str, needs: frozenset[Any] | None = None) -> Granted:
    """A model with what the attack declares, or with `needs`."""
    granted = Granted(Timed(name), build(name).needs if needs is None else needs, name)
    return granted.eval()


@functools.cache
def learnt(name: str, pixels: int | None = None, epsilon: int = 8) -> State | None:
    """The fitted state of the attack within a budget; None unless it is learned."""
    return fitted(name, source_of(name), ThreatModel(epsilon, pixels))


def fitted(name: str, source: Granted, threat: ThreatModel) -> State | None:
    attack, timed = build(name), source.victim
    if not isinstance(attack, LearnedAttack):
        return None
    assert isinstance(timed, Timed)
    torch.manual_seed(0)  # as the bench does
    context = FitContext(
        torch.device("cpu"), torch.Generator().manual_seed(0), progress=lambda done, total, note: timed.in_time()
    )
    return attack.fit(source, TRAINING, threat, context)


def seen_by(attack: Attack, threat: ThreatModel) -> ThreatModel:
    """`threat` with the form of answer that a query attack asks for."""
    forms = attack.needs & set(FORMS)
    return replace(threat, sees=next(iter(forms)), queries=QUERIES) if forms else threat


def batch_for(needs: frozenset[Any], threat: ThreatModel | None = None) -> Batch:
    """The images, and no more than the needs of an attack and its threat model declare."""
    labels = torch.from_numpy(PEOPLE) if "labels" in needs else None
    targets = TARGETS if threat is not None and threat.impersonate else None
    return Batch(to_float(CLEAN), labels, GALLERY if "gallery" in needs else None, targets)


def run(
    name: str,
    source: Victim | None,
    threat: ThreatModel,
    generator: torch.Generator,
    state: State | None = None,
    needs: frozenset[Any] | None = None,
) -> torch.Tensor:
    """What the bench does with an attack whose needs are given."""
    attack = build(name)
    needs = attack.needs if needs is None else needs
    threat, batch = seen_by(attack, threat), batch_for(needs, threat)
    if isinstance(attack, QueryAttack):
        assert source is not None
        asker = Asker(name, torch.from_numpy(PEOPLE), torch.zeros(6, dtype=torch.int64))
        oracle = Counted(
            source, threat, asker, Gallery(GALLERY, lambda images: embedded(images)), labels="labels" in needs
        )
        return attack.search(oracle, batch, threat, generator)
    return attack.craft(source, batch, threat, generator, **({} if state is None else {"state": state}))


def embedded(images: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return Timed("the gallery").embed(to_float(images))


def crafted(
    name: str, threat: ThreatModel, source: Victim | None, seed: int = 0, generator: torch.Generator | None = None
) -> torch.Tensor:
    state = learnt(name, threat.pixels, threat.epsilon)
    return run(name, source, threat, generator or torch.Generator().manual_seed(seed), state)


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
def test_inputs_and_source_are_left_as_they_were(name: str, monkeypatch) -> None:
    source, state = source_of(name), learnt(name)
    copies = {key: value.clone() for key, value in (state or {}).items()}
    references, digest = GALLERY.images.copy(), weights_digest(source)
    batch = batch_for(build(name).needs)
    monkeypatch.setattr(sys.modules[__name__], "batch_for", lambda *_: batch)
    run(name, source, ThreatModel(8), torch.Generator(), state)
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
    for model in (source, source.victim):
        assert {"embed", "logits", "purify", "suspicion"}.isdisjoint(vars(model)), "no method is left replaced"


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
    threat, timed = ThreatModel(8), Timed(name)
    adversarial = crafted(name, threat, Granted(adapt(timed, 2, randomised=randomised), build(name).needs, name))
    assert (enforce(adversarial, CLEAN, threat, attack=name) != CLEAN).any()
    assert "purify" not in vars(timed)


@pytest.mark.parametrize("name", EVERY)
def test_it_needs_what_it_declares(name: str) -> None:
    """The source of every test here has no logits or gradients, the batch no labels or references, if not declared."""
    attack = build(name)
    assert attack.needs <= NEEDS
    if not attack.needs:
        assert torch.equal(crafted(name, ThreatModel(8), None), crafted(name, ThreatModel(8), source_of(name)))


@pytest.mark.parametrize(
    ("name", "need"), [(name, need) for name in EVERY for need in sorted(build(name).needs - set(FORMS))]
)
def test_it_declares_no_more_than_it_uses(name: str, need: Any) -> None:
    needs, threat, generator = build(name).needs - {need}, ThreatModel(8), torch.Generator()
    try:
        source = source_of(name, needs)
        without = run(name, source, threat, generator.manual_seed(0), fitted(name, source, threat), needs)
    except (BenchError, AssertionError, AttributeError, RuntimeError, TypeError):
        return
    assert not torch.equal(without, crafted(name, threat, source_of(name)))


@pytest.mark.parametrize("name", [name for name in EVERY if isinstance(build(name), QueryAttack)])
def test_a_query_attack_asks_for_one_form_of_answer_and_keeps_its_budget(name: str, monkeypatch) -> None:
    forms = build(name).needs & set(FORMS)
    assert len(forms) == 1
    other = next(form for form in FORMS if form not in forms)
    threat = replace(seen_by(build(name), ThreatModel(8)), sees=other)
    monkeypatch.setattr(sys.modules[__name__], "seen_by", lambda *_: threat)
    with pytest.raises(AccessError, match=f"asks for {next(iter(forms))}, and its threat model gives {other} only"):
        crafted(name, threat, source_of(name))
    few = replace(threat, sees=next(iter(forms)), queries=2)
    monkeypatch.setattr(sys.modules[__name__], "seen_by", lambda *_: few)
    enforce(crafted(name, few, source_of(name)), CLEAN, few, attack=name)


def distance_to_targets(images: torch.Tensor) -> float:
    model = Timed("the judge")
    apart = distances(model.embed(images), model.embed(to_float(GUIDES.images)), model.distance)
    of_target = TARGETS.identities[:, None] == torch.from_numpy(GUIDES.identities)
    return float(apart[of_target].mean())


@pytest.mark.parametrize(
    "name",  # those that see distances to the gallery or lists get there without nearing the guides
    [name for name in EVERY if build(name).impersonates and not build(name).needs & {"distances", "ranking"}],
)
def test_one_that_impersonates_moves_towards_its_targets(name: str) -> None:
    threat = ThreatModel(8, impersonate="random")
    adversarial, again = (crafted(name, threat, source_of(name)) for _ in range(2))
    assert torch.equal(adversarial, again)
    enforce(adversarial, CLEAN, threat, attack=name)
    assert distance_to_targets(adversarial) < distance_to_targets(to_float(CLEAN))
    assert distance_to_targets(adversarial) < distance_to_targets(crafted(name, ThreatModel(8), source_of(name)))


@pytest.mark.parametrize("name", EVERY)
def test_what_it_learns_is_repeated_and_stored(name: str) -> None:
    state = learnt(name)
    if state is None:
        return
    source = source_of(name)
    digest = weights_digest(source)
    again = fitted(name, source_of(name), ThreatModel(8))
    assert again is not None
    assert state.keys() == again.keys()
    assert all(torch.equal(value, again[key]) for key, value in state.items())
    assert all(isinstance(value, torch.Tensor) and value.device.type == "cpu" for value in state.values())
    stored = load(save({key: value.contiguous() for key, value in state.items()}))
    crafts = [run(name, source, ThreatModel(8), torch.Generator(), each) for each in (state, stored)]
    assert torch.equal(*crafts)
    assert weights_digest(source) == digest


def test_an_attack_that_takes_long_is_told_what_to_do() -> None:
    timed = Timed("slow")
    timed.deadline = 0.0
    with pytest.raises(
        AssertionError, match="slow computes for more than 5 s with its defaults: give it small options"
    ):
        timed.embed(to_float(CLEAN))
    with pytest.raises(AccessError, match="slow asks for logits, which it does not declare"):
        Granted(timed, frozenset({"gradients"}), "slow").logits(to_float(CLEAN))
