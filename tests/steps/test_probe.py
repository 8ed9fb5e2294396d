"""The probe of ready victims: it notices what changes embeddings, and no rounding."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from reid_attack_bench.contracts import Victim, preprocess
from reid_attack_bench.steps.probe import DIFFERS, probe
from tests.plugins.toy import NanVictim, ToyVictim
from tests.steps.conftest import toy


class Noisy(ToyVictim):
    """Answers with a relative error, as another machine would; weights and errors are other ones for each instance."""

    def __init__(self, error: float, instance: int) -> None:
        super().__init__(seed=instance)
        self.error, self.instance = error, instance

    def embed(self, images):
        embeddings = super().embed(images)
        noise = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(self.instance))
        return embeddings + self.error * embeddings.square().mean().sqrt() * noise


def noticed(error: float, instances: int) -> float:
    """Share of instances whose digest the error changes."""
    return float(np.mean([probe(Noisy(error, each)) != probe(Noisy(0.0, each)) for each in range(instances)]))


def test_rounding_is_not_noticed_and_changes_are() -> None:
    """As calculated at the top of the module, of a toy whose embeddings are alike: differences are a tenth of them."""
    assert noticed(1e-7, 12) == 0
    assert noticed(1e-6, 12) <= 0.1
    assert noticed(1e-2, 12) == 1


def test_the_number_of_threads_changes_nothing() -> None:
    before = torch.get_num_threads()
    digests = set()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        digests.add(probe(ToyVictim()))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert len(digests) == 1


class Switch(ToyVictim):
    """Does as a variable of the environment says."""

    def embed(self, images):
        how = os.environ.get("TOY_SWITCH", "")
        ready = preprocess(images, self.input_size)
        if how == "resize":
            ready = preprocess(functional.avg_pool2d(images, 2), self.input_size)
        features = self.body(ready).mean(3).flatten(1)
        return {"scale": 2 * features, "pooling": features.relu(), "part": features[:, 1:]}.get(how, features)

    def logits(self, images):
        scores = self.classifier(torch.nn.functional.adaptive_avg_pool1d(self.embed(images), 64))
        return scores.flip(1) if os.environ.get("TOY_SWITCH") == "logits" else scores

    def suspicion(self, images):
        return images.mean(dim=(1, 2, 3)) - (0.4 if os.environ.get("TOY_SWITCH") == "threshold" else 0.5)


def test_what_changes_an_answer_is_noticed(monkeypatch) -> None:
    found = {probe(Switch())}
    for how in ("resize", "scale", "pooling", "part", "logits", "threshold"):
        monkeypatch.setenv("TOY_SWITCH", how)
        found.add(probe(Switch()))
    assert len(found) == 7


def test_the_probe_is_in_the_key_and_not_in_the_seed(monkeypatch) -> None:
    before = toy(victim=Switch())
    monkeypatch.setenv("TOY_SWITCH", "pooling")
    after = toy(victim=Switch())
    assert before.key != after.key
    assert before.seed == after.seed


class Blown(ToyVictim):
    def embed(self, images):
        raise RuntimeError("no")


@pytest.mark.parametrize("kind", [NanVictim, Blown])
def test_a_victim_that_fails_has_none(kind) -> None:
    assert probe(kind()) == ""
    assert toy(victim=kind()).implementation == {"code": "v1"}


class Fixed(ToyVictim):
    """Takes images of its own size only."""

    def embed(self, images):
        assert images.shape[-2:] == self.input_size
        return super().embed(images)


class Tall(ToyVictim):
    """Has longer embeddings for larger images."""

    def embed(self, images):
        return images.mean(dim=3).flatten(1)


@pytest.mark.parametrize("kind", [Fixed, Tall])
def test_images_of_another_size_are_not_needed(kind) -> None:
    victim = kind()
    victim.classifies = False
    assert len(probe(victim)) == 16


class Seeded(ToyVictim):
    def embed(self, images):
        drawn = torch.rand(1).item() + np.random.rand() + random.random()
        return super().embed(images) * (1 + drawn)


class Unseeded(ToyVictim):
    def embed(self, images):
        return super().embed(images) * (1 + np.random.default_rng().random())


def test_draws_that_a_seed_repeats_are_probed_and_others_are_named() -> None:
    assert probe(Seeded()) == probe(Seeded()) != DIFFERS
    assert probe(Unseeded()) == DIFFERS


def test_nothing_else_is_changed() -> None:
    victim = ToyVictim()
    states = [torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()]
    weights = {name: value.clone() for name, value in victim.state_dict().items()}
    probe(victim)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
    assert all(torch.equal(value, weights[name]) for name, value in victim.state_dict().items())
    images = torch.rand(2, 3, 64, 32, requires_grad=True)
    victim.embed(images).sum().backward()  # what a victim keeps between calls still takes part in a backward pass


class Tree(Victim):
    input_size = (64, 32)

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def embed(self, images):
        parts = functional.adaptive_avg_pool2d(images, (7, 1)).flatten(2)
        return {"parts": parts, "seen": [self.share * parts.amax(dim=2)]}


def test_features_may_be_trees_of_tensors() -> None:
    assert probe(Tree(1.0)) not in ("", DIFFERS)
    assert probe(Tree(1.0)) != probe(Tree(0.5))


def test_a_model_that_gives_all_images_one_embedding_has_a_digest() -> None:
    class Constant(Victim):
        input_size = (64, 32)

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8))

        def embed(self, images):
            return self.weight + 0.0 * images.mean(dim=(1, 2, 3))[:, None]

    assert len({probe(Constant()) for _ in range(3)}) == 1
