"""Adversarial training with a metric objective (Bai et al., TPAMI 2021, arXiv 1901.10650) or the mis-ranking objective
(Wang et al., CVPR 2020, arXiv 2004.04199).

Bai et al. train on adversarial images that are crafted once. Here they are crafted on the current model in every step
(Madry et al., arXiv 1706.06083), which is the stronger defence. The given model, already trained, is fine-tuned.
`consistency` adds the penalty of TRADES (Zhang et al., ICML 2019, arXiv 1901.08573) with the distance of embeddings in
place of the divergence of predictions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import ADDED_LATER, State, ThreatModel, Victim, paired
from reid_attack_bench.validation import Count, NonNegative, Share

from .fine_tuning import FineTuning, FitBatch

Objective = Literal["metric", "mis-ranking"]


@dataclass(frozen=True)
class AdversarialTraining(FineTuning):
    """Fine-tune a victim on clean images and on adversarial images crafted on its current weights.

    The triplet loss and updated batch statistics are over clean and adversarial images together; images are crafted on
    the model in eval mode. Settings of the training are those of FineTuning.

    Attributes:
        objective: objective of the adversarial images. "metric" moves the embedding of an image away from that of the
            clean image; "mis-ranking" moves it towards the farthest other identity of the batch and away from the
            nearest image of its own.
        epsilon: budget of the adversarial images, in 1/255.
        attack_steps: signed-gradient steps per adversarial image.
        clean_weight: weight of the cross entropy on clean images; that on adversarial images has the rest.
        consistency: weight of the mean distance between the embeddings of an image and of its adversarial version.
    """

    name: ClassVar[str] = "adversarial-training"
    version: ClassVar[int] = 1
    objective: Objective = "metric"
    epsilon: Annotated[int, Field(ge=0, le=255)] = 8
    attack_steps: Count = 2
    clean_weight: Share = 0.3
    consistency: NonNegative = field(default=0.0, metadata=ADDED_LATER)

    @property
    def fit_work(self) -> float:
        return 3.0 * (self.attack_steps + 2) * self.steps * self.batch_identities * self.batch_instances

    def defend(self, victim: Victim, state: State | None = None) -> Victim:
        defended = self.defended(victim, state)
        defended.defence = f"{self.objective} adversarial training, epsilon {self.epsilon}"
        defended.citation = "arXiv 1901.10650" if self.objective == "metric" else "arXiv 2004.04199"
        return defended

    def draw(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Random starts of the adversarial images, -1 to 1."""
        return 2 * torch.rand(images.shape, generator=generator) - 1

    def loss(self, model: Victim, batch: FitBatch, memory: State) -> Tensor:
        clean, identities = batch.images, batch.identities
        model.requires_grad_(False)
        adversarial = self._adversarial(model, clean, identities, batch.drawn)
        model.requires_grad_(True)
        both = torch.cat([identities, identities])
        embeddings, logits = self.answers(model, torch.cat([clean, adversarial]), both)
        entropy = functional.cross_entropy(logits, both, label_smoothing=self.label_smoothing, reduction="none")
        on_clean, on_adversarial = entropy.view(2, -1).mean(dim=1)
        mixed = self.clean_weight * on_clean + (1 - self.clean_weight) * on_adversarial
        loss = mixed + self.triplet(embeddings, both, model)
        if self.consistency > 0:
            of_clean, of_adversarial = embeddings.chunk(2)
            loss = loss + self.consistency * _paired(of_adversarial, of_clean, model).mean()
        return loss

    def _adversarial(self, model: Victim, clean: Tensor, identities: Tensor, noise: Tensor) -> Tensor:
        threat = ThreatModel(epsilon=self.epsilon)
        current = threat.project(clean + threat.radius * noise, clean)
        objective = self._objective(model, clean, identities)
        step_size = 1.5 * threat.radius / self.attack_steps
        for _ in range(self.attack_steps):
            current = current.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(objective(current), current)
            current = threat.project(current.detach() + step_size * gradient.sign(), clean)
        return current.detach()

    def _objective(self, model: Victim, clean: Tensor, identities: Tensor) -> Callable[[Tensor], Tensor]:
        with torch.no_grad():
            reference = model.embed(clean)
        if self.objective == "metric":
            return lambda images: _paired(model.embed(images), reference, model).sum()
        same = identities[:, None] == identities[None, :]
        itself = torch.eye(len(clean), dtype=torch.bool, device=clean.device)

        def misranked(images: Tensor) -> Tensor:
            matrix = model.compare(model.embed(images), reference)
            nearest_same = matrix.masked_fill(~same | itself, math.inf).min(dim=1).values
            farthest_other = matrix.masked_fill(same, -math.inf).max(dim=1).values
            return (nearest_same - farthest_other).sum()

        return misranked


def _paired(first: Tensor, second: Tensor, victim: Victim) -> Tensor:
    """Distances between equal rows, by the distance of `victim`: N values."""
    if victim.own_comparison:
        return paired(victim, first, second)
    if victim.distance == "cosine":
        return 1 - functional.cosine_similarity(first, second)
    return (first - second).square().sum(dim=1)
