"""Training with a universal perturbation: what it leaves under one, its steps by hand, and that it resumes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from reid_attack_bench.contracts import State, Victim, distances, to_float
from reid_attack_bench.metrics.ranking import rank, summary
from reid_attack_bench.victims.defences import fine_tuning
from reid_attack_bench.victims.defences.fine_tuning import FitBatch
from reid_attack_bench.victims.defences.uap_training import UAPTraining
from tests.attacks.test_misranking_training import Memory
from tests.plugins.toy import ToyVictim
from tests.victims.test_adversarial_training import Normalised, blocks, fitted

SETTINGS = UAPTraining(steps=80, batch_identities=4, learning_rate=3e-3, batch_norm="updated", restart_every=40)
RADIUS = 8 / 255


def universal(victim: Victim, images: Tensor) -> Tensor:
    """One perturbation that moves the embeddings of all images, by signed gradients."""
    clean = victim.embed(images).detach()
    start = torch.rand((1, *images.shape[1:]), generator=torch.Generator().manual_seed(0))
    moved = RADIUS * (2 * start - 1)
    for _ in range(30):
        moved = moved.detach().requires_grad_(True)
        apart = -torch.nn.functional.cosine_similarity(victim.embed((images + moved).clamp(0, 1)), clean)
        (gradient,) = torch.autograd.grad(apart.sum(), moved)
        moved = (moved.detach() + 0.2 * RADIUS * gradient.sign()).clamp(-RADIUS, RADIUS)
    return moved


def left(settings: UAPTraining) -> tuple[float, float]:
    """mAP of images of camera 0 among those of camera 1, and under a universal perturbation."""
    victim = Normalised()
    defended = settings.defend(victim, fitted(settings, victim)).eval().requires_grad_(False)
    data = blocks()
    query, gallery = (np.flatnonzero(data.cameras == camera) for camera in (0, 1))
    labels = [values[rows] for values in (data.identities, data.cameras) for rows in (query, gallery)]
    clean, others = (to_float(data.images[rows]) for rows in (query, gallery))
    found = []
    for images in (clean, (clean + universal(defended, clean)).clamp(0, 1)):
        apart = distances(defended.embed(images), defended.embed(others), defended.distance)
        found.append(summary(rank(apart.numpy(), *labels))["mAP"])
    return found[0], found[1]


def test_it_leaves_more_under_a_universal_perturbation_than_the_same_training_without_one() -> None:
    settings = replace(SETTINGS, step_size=2.0)
    clean, attacked = left(settings)
    assert clean > 90
    assert attacked > left(replace(settings, epsilon=0))[1] + 10  # 85.5 and 65.9 when this was written


def batch(count: int = 3) -> FitBatch:
    generator = torch.Generator().manual_seed(0)
    images = 0.2 + 0.6 * torch.rand(count, 3, 64, 32, generator=generator)
    return FitBatch(images, torch.arange(count) % 2, SETTINGS.draw(images, generator))


def test_the_perturbation_climbs_the_loss_that_the_model_descends() -> None:
    model, settings, one = ToyVictim(), replace(SETTINGS, share=1.0, decay=0.5), batch()
    memory: State = settings.remember(blocks(), torch.device("cpu"))
    start = RADIUS * (2 * one.drawn[:-3].view(1, 3, 64, 32) - 1)
    current, momentum = start, torch.zeros_like(start)
    for _ in range(3):
        settings.loss(model, one, memory).backward()
        torch.testing.assert_close(memory["perturbation"].detach(), current)
        settings.after_step(memory)
        leaf = current.clone().requires_grad_(True)
        embeddings, logits = model.outputs((one.images + leaf).clamp(0, 1))
        loss = torch.nn.functional.cross_entropy(logits, one.identities, label_smoothing=0.1)
        (gradient,) = torch.autograd.grad(loss + settings.triplet(embeddings, one.identities, model), leaf)
        momentum = 0.5 * momentum + gradient / gradient.abs().mean()
        current = (current + momentum.sign() / 255).clamp(-RADIUS, RADIUS)
        torch.testing.assert_close(memory["perturbation"], current)
    assert (current.abs() <= RADIUS).all()


def test_its_share_of_images_is_perturbed() -> None:
    seen: list[Tensor] = []

    class Watched(ToyVictim):
        def outputs(self, images):
            seen.append(images.detach())
            return super().outputs(images)

    settings, one = replace(SETTINGS, share=0.25), batch(200)
    settings.loss(Watched(), one, settings.remember(blocks(), torch.device("cpu")))
    changed = (seen[0] != one.images).flatten(1).any(dim=1)
    assert changed.sum() == (one.drawn[-200:] < 0.25).sum()
    assert 30 < changed.sum() < 70


def test_it_restarts() -> None:
    settings, model = replace(SETTINGS, restart_every=2), ToyVictim()
    memory = settings.remember(blocks(), torch.device("cpu"))
    found = []
    for _ in range(3):
        settings.loss(model, batch(), memory).backward()
        found.append(memory["perturbation"].detach().clone())
        settings.after_step(memory)
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("restart_every", [2, 200])
def test_a_resumed_fit_gives_the_same_bits(restart_every, monkeypatch) -> None:
    monkeypatch.setattr(fine_tuning, "CHECKPOINT_SECONDS", 0.0)
    settings = replace(SETTINGS, steps=6, restart_every=restart_every)
    whole, memory = fitted(settings, ToyVictim()), Memory(interrupt_after=3)
    with pytest.raises(KeyboardInterrupt):
        fitted(settings, ToyVictim(), memory)
    resumed = fitted(settings, ToyVictim(), memory)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
