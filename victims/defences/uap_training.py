"""Adversarial training with a universal perturbation, after Fast-UAP-AT (RobustReidResearch, ICIP 2024).

One perturbation for all images is kept between batches. The backward pass that trains the model also gives the gradient
of the perturbation, which takes a step up the loss after each batch, so that training costs no more than without an
attack (as in Shafahi et al., NeurIPS 2019, arXiv 1904.12843).

The published code (github.com/HWliiu/RobustReidResearch, reid_defense/fast_uap_at.py) trains a new network for 60
epochs and restarts the perturbation in each. Here the given model, already trained, is fine-tuned, on batches and a
schedule as in `adversarial-training`. Its UAP-AT, which makes a new perturbation of 128 images for each epoch, is left
out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import State, TrainingData, Victim
from reid_attack_bench.validation import Count, NonNegative, Share

from .fine_tuning import FineTuning, FitBatch

_KEPT = "perturbation"


@dataclass(frozen=True)
class UAPTraining(FineTuning):
    """Fine-tune a victim on images under one perturbation that climbs its loss from batch to batch.

    Settings of the training are those of FineTuning.

    Attributes:
        epsilon: budget of the perturbation, in 1/255.
        step_size: of a signed step of the perturbation, in 1/255.
        decay: share of the gradients of before in a step; each gradient is divided by its mean magnitude.
        share: share of the images of a batch that are perturbed.
        restart_every: batches after which the perturbation is drawn anew.
    """

    name: ClassVar[str] = "uap-training"
    version: ClassVar[int] = 1
    epsilon: Annotated[int, Field(ge=0, le=255)] = 8
    step_size: NonNegative = 1.0
    decay: NonNegative = 1.0
    share: Share = 0.8
    restart_every: Count = 200

    @property
    def fit_work(self) -> float:
        return 3.0 * self.steps * self.batch_identities * self.batch_instances

    def defend(self, victim: Victim, state: State | None = None) -> Victim:
        defended = self.defended(victim, state)
        defended.defence = f"training with a universal perturbation, epsilon {self.epsilon}"
        defended.citation = "RobustReidResearch, ICIP 2024"
        return defended

    def draw(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """For the start of the perturbation, and for the choice of images, 0 to 1."""
        return torch.rand(images[0].numel() + len(images), generator=generator)

    def remember(self, data: TrainingData, device: torch.device) -> State:
        height, width = data.images.shape[1:3]
        still = torch.zeros(1, 3, height, width, device=device)
        return {_KEPT: still, "momentum": still.clone(), "batches": torch.tensor(0)}

    def loss(self, model: Victim, batch: FitBatch, memory: State) -> Tensor:
        images, identities, count = batch.images, batch.identities, len(batch.images)
        if int(memory["batches"]) % self.restart_every == 0:
            drawn = 2 * batch.drawn[:-count] - 1
            memory[_KEPT] = drawn.view(memory[_KEPT].shape) * self.epsilon / 255
            memory["momentum"] = torch.zeros_like(memory["momentum"])
        memory["batches"] = memory["batches"] + 1
        memory[_KEPT] = memory[_KEPT].detach().requires_grad_(True)
        chosen = (batch.drawn[-count:] < self.share).to(images)
        perturbed = (images + memory[_KEPT] * chosen.view(-1, 1, 1, 1)).clamp(0, 1)
        embeddings, logits = self.answers(model, perturbed, identities)
        entropy = functional.cross_entropy(logits, identities, label_smoothing=self.label_smoothing)
        return entropy + self.triplet(embeddings, identities, model)

    def after_step(self, memory: State) -> None:
        gradient = memory[_KEPT].grad
        assert gradient is not None  # it is part of the loss
        size = gradient.abs().mean().clamp_min(torch.finfo(gradient.dtype).tiny)
        memory["momentum"] = self.decay * memory["momentum"] + gradient / size
        radius = self.epsilon / 255
        moved = memory[_KEPT].detach() + self.step_size / 255 * memory["momentum"].sign()
        memory[_KEPT] = moved.clamp(-radius, radius)
