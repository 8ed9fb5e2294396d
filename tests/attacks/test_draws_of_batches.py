"""Random numbers follow the image: the images of an attack do not depend on batch_size."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from reid_attack_bench import registry
from reid_attack_bench.attacks.metric import MetricPGD
from reid_attack_bench.contracts import DRAW_BATCH, Attack, LearnedAttack, ThreatModel, Victim
from reid_attack_bench.data.catalogue import DataSource
from reid_attack_bench.data.split import Split
from reid_attack_bench.steps.artefacts import read_crafted
from reid_attack_bench.steps.craft import craft_step
from reid_attack_bench.steps.data import data_step
from reid_attack_bench.steps.fit import fit_step
from reid_attack_bench.steps.step import Configured, Step
from reid_attack_bench.steps.victim import ready_step
from tests.attacks.test_every_attack import SMALL
from tests.steps.conftest import Lab, attacked

SIZES = (1, 7, 16, 64, 100)
COUNTS = {"train": 40, "query": 70, "gallery": 12}
SIDE = 16

Case = tuple[str, dict[str, Any], ThreatModel]


class Apart(Victim):
    """Answers each image by itself, so that no rounding depends on a batch; with `sigma` at random."""

    input_size = (SIDE, SIDE)

    def __init__(self, sigma: float = 0.0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(10, 48, generator=torch.Generator().manual_seed(0)) - 0.5)
        self.sigma, self.randomised = sigma, sigma > 0

    def embed(self, images):
        pooled = torch.nn.functional.avg_pool2d(images, 4).flatten(1)
        found = (pooled.unsqueeze(1) * self.weight).sum(dim=2)
        if not self.randomised:
            return found
        return found + self.sigma * (torch.rand_like(found) - torch.rand_like(found))

    def logits(self, images):
        return self.embed(images)


class Careless(MetricPGD):
    """Draws in each step, for the whole batch, and says nothing of it."""

    def craft(self, source, batch, threat, generator, state=None):
        current = batch.images
        for _ in range(3):
            current = current.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(source.embed(current).square().sum(), current)
            noise = torch.randn(current.shape, generator=generator)
            current = threat.project(current + threat.radius * gradient.sign() * noise, batch.images)
        return current.detach()

    def draws_each_image(self, threat):
        return Attack.draws_each_image(self, threat)


def cases() -> Iterator[Case]:
    """Every registered attack, and the settings by which it draws more."""
    for name in registry.available("attack"):
        made = registry.find("attack", name).build({})
        known = {each.name for each in fields(made)}
        small = SMALL.get(
            name, {**({"steps": 3} if "steps" in known else {}), **({"iterations": 2} if "iterations" in known else {})}
        )
        asked = next((form for form in ("embedding", "distances", "ranking") if form in made.needs), None)
        threat = ThreatModel(8, sees=asked, queries=6) if asked else ThreatModel(8)
        more = [{"diversity": 0.5}, {"restarts": 2}, {"blocks": (2, 2)}]
        for extra in [{}, *(each for each in more if each.keys() <= known)]:
            yield name, {**small, **extra}, threat
    yield "noise", {}, ThreatModel(8, pixels=9)


@functools.cache
def data() -> Step:
    def load(progress, allocate) -> dict[str, Split]:
        rng, splits = np.random.default_rng(0), {}
        for part, count in COUNTS.items():
            images = allocate(part, (count, SIDE, SIDE, 3))
            images[:] = rng.integers(60, 196, images.shape, dtype=np.uint8)
            splits[part] = Split(images, np.arange(count) % 10, np.full(count, int(part == "gallery")))
        return splits

    return data_step(DataSource("alike", True, "market1501", {"made": "here"}, COUNTS, load))


def crafted(lab: Lab, attack: Attack, threat: ThreatModel, victim: Victim, size: int, adaptive: int = 0) -> np.ndarray:
    run = attacked(attack, threat, adaptive=adaptive)
    sources = [ready_step("apart", Configured("apart", "v1", {}, victim))]
    fit = fit_step(run, sources, data(), ()) if isinstance(attack, LearnedAttack) else None
    step = craft_step(run, sources, data(), fit, {}, size, (), DRAW_BATCH)
    return read_crafted(lab.run(step))["query"]


@pytest.fixture
def lab(tmp_path) -> Lab:
    return Lab(tmp_path)


@pytest.mark.parametrize(("name", "options", "threat"), list(cases()))
def test_the_images_of_an_attack_do_not_depend_on_the_batch(lab, name, options, threat) -> None:
    attack = registry.find("attack", name).build(options)
    sizes = (7, 64) if name in SMALL else SIZES  # networks that draw nothing
    found = {size: crafted(lab, attack, threat, Apart(), size) for size in sizes}
    assert (found[64] != lab.workspace.splits(data().key)["query"].images).any()
    assert [size for size in sizes if not np.array_equal(found[size], found[64])] == []


def test_nor_do_those_of_one_that_draws_for_the_whole_batch(lab) -> None:
    found = [crafted(lab, Careless(), ThreatModel(8), Apart(), size) for size in SIZES]
    assert all(np.array_equal(images, found[3]) for images in found)
    costs = [facts for facts in lab.facts.values() if "forward_passes" in facts]
    assert costs == [costs[0]] * len(SIZES), "and it costs the same"


@pytest.mark.parametrize("adaptive", [0, 2])
def test_nor_those_on_a_source_that_draws(lab, adaptive) -> None:
    found = [crafted(lab, MetricPGD(steps=2), ThreatModel(8), Apart(0.1), size, adaptive) for size in SIZES]
    assert all(np.array_equal(images, found[3]) for images in found)


def test_what_decides_no_random_number_is_in_no_key() -> None:
    def key(attack: Attack, size: int, together: int, victim: Victim) -> str:
        source = ready_step("apart", Configured("apart", "v1", {}, victim))
        return craft_step(attacked(attack), [source], data(), None, {}, size, (), together).key

    for size, together in ((32, 32), (64, 64)):
        assert key(Careless(), size, together, Apart()) != key(Careless(), size, 16, Apart())
        assert key(MetricPGD(), size, together, Apart()) == key(MetricPGD(), size, 16, Apart())
        assert key(MetricPGD(), size, together, Apart(0.1)) != key(MetricPGD(), size, 16, Apart(0.1))
