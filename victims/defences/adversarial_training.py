"""Adversarial training with a metric objective (Bai et al., TPAMI 2021, arXiv 1901.10650) or the mis-ranking objective
(Wang et al., CVPR 2020, arXiv 2004.04199).

Bai et al. train on adversarial images that are crafted once. Here they are crafted on the current model in every step
(Madry et al., arXiv 1706.06083), which is the stronger defence. The given model, already trained, is fine-tuned.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import (
    FitContext,
    LearnedDefence,
    State,
    ThreatModel,
    TrainingData,
    Victim,
    distances,
    to_cpu,
)
from reid_attack_bench.data.sampling import pk_batches
from reid_attack_bench.errors import BenchError
from reid_attack_bench.validation import Count, NonNegative, Positive, Share, check_settings

Objective = Literal["metric", "mis-ranking"]


@dataclass(frozen=True)
class AdversarialTraining(LearnedDefence):
    """Fine-tune a victim on clean images and on adversarial images crafted on its current weights.

    Attributes:
        objective: objective of the adversarial images. "metric" moves the embedding of an image away from that of the
            clean image; "mis-ranking" moves it towards the farthest other identity of the batch and away from the
            nearest image of its own.
        epsilon: budget of the adversarial images, in 1/255.
        attack_steps: signed-gradient steps per adversarial image.
        steps: training batches.
        batch_identities, batch_instances: P identities and K images of each per batch.
        learning_rate: peak of a one-cycle schedule over Adam.
        clean_weight: weight of the cross entropy on clean images; that on adversarial images has the rest.
        triplet_weight, margin: batch-hard triplet loss, over clean and adversarial images together.
        label_smoothing: label smoothing of the cross entropy.
    """

    version: ClassVar[int] = 1
    objective: Objective = "metric"
    epsilon: Annotated[int, Field(ge=0, le=255)] = 8
    attack_steps: Count = 2
    steps: Count = 300
    batch_identities: Annotated[int, Field(ge=2)] = 8
    batch_instances: Annotated[int, Field(ge=2)] = 2
    learning_rate: Positive = 1e-3
    clean_weight: Share = 0.3
    triplet_weight: NonNegative = 1.0
    margin: NonNegative = 0.3
    label_smoothing: Share = 0.1

    def __post_init__(self) -> None:
        check_settings(self, "adversarial-training")

    @property
    def fit_work(self) -> float:
        return 3.0 * (self.attack_steps + 2) * self.steps * self.batch_identities * self.batch_instances

    def fit(self, victim: Victim, data: TrainingData, context: FitContext) -> State:
        """Fine-tune a copy of `victim` on `data` and return its weights.

        The model stays in eval mode: batch normalisation keeps the statistics of the clean training.

        Raises:
            BenchError: the victim has no logits over the identities of `data`, or the loss is not finite.
        """
        model = copy.deepcopy(victim).to(context.device).eval().requires_grad_(True)
        optimiser = torch.optim.Adam(model.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=self.learning_rate, total_steps=self.steps, pct_start=0.1, cycle_momentum=False
        )
        batches = pk_batches(data.identities, self.batch_identities, self.batch_instances, context.generator)
        threat = ThreatModel(epsilon=self.epsilon)
        for step in range(self.steps):
            clean, identities = data.batch(next(batches), context.device)
            flipped = torch.rand(len(clean), generator=context.generator) < 0.5
            clean = torch.where(flipped.to(clean.device)[:, None, None, None], clean.flip(-1), clean)
            model.requires_grad_(False)
            adversarial = self._adversarial(model, clean, identities, threat, context.generator)
            model.requires_grad_(True)
            loss = self._loss(model, clean, adversarial, identities)
            if not math.isfinite(loss.item()):
                raise BenchError(f"adversarial training diverged at step {step}: lower learning_rate")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            context.progress(step + 1, self.steps, f"loss {loss.item():.2f}")
        return to_cpu(model.state_dict())

    def defend(self, victim: Victim, state: State | None = None) -> Victim:
        assert state is not None  # a LearnedDefence always gets one
        defended = copy.deepcopy(victim)
        defended.load_state_dict(state)
        defended.defence = f"{self.objective} adversarial training, epsilon {self.epsilon}"
        defended.citation = "arXiv 1901.10650" if self.objective == "metric" else "arXiv 2004.04199"
        return defended

    def _adversarial(
        self, model: Victim, clean: Tensor, identities: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        noise = 2 * torch.rand(clean.shape, generator=generator).to(clean.device) - 1
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
            matrix = distances(model.embed(images), reference, model.distance)
            nearest_same = matrix.masked_fill(~same | itself, math.inf).min(dim=1).values
            farthest_other = matrix.masked_fill(same, -math.inf).max(dim=1).values
            return (nearest_same - farthest_other).sum()

        return misranked

    def _loss(self, model: Victim, clean: Tensor, adversarial: Tensor, identities: Tensor) -> Tensor:
        embeddings, logits = model.outputs(torch.cat([clean, adversarial]))
        if logits is None or logits.shape[1] <= int(identities.max()):
            raise BenchError(
                f"adversarial training needs a victim with logits over its training identities; {model.name} has none"
            )
        both = torch.cat([identities, identities])
        entropy = functional.cross_entropy(logits, both, label_smoothing=self.label_smoothing, reduction="none")
        on_clean, on_adversarial = entropy.view(2, -1).mean(dim=1)
        mixed = self.clean_weight * on_clean + (1 - self.clean_weight) * on_adversarial
        return mixed + self.triplet_weight * _triplet(embeddings, both, model, self.margin)


def _paired(first: Tensor, second: Tensor, victim: Victim) -> Tensor:
    """Distances between equal rows, by the distance of `victim`: N values."""
    if victim.distance == "cosine":
        return 1 - functional.cosine_similarity(first, second)
    return (first - second).square().sum(dim=1)


def _triplet(embeddings: Tensor, identities: Tensor, victim: Victim, margin: float) -> Tensor:
    """Batch-hard triplet loss (Hermans et al., arXiv 1703.07737) on the distance of `victim`."""
    matrix = distances(embeddings, embeddings, victim.distance).clamp_min(1e-12)
    matrix = matrix.sqrt() if victim.distance == "euclidean" else matrix
    same = identities[:, None] == identities[None, :]
    farthest_same = matrix.masked_fill(~same, -math.inf).max(dim=1).values
    nearest_other = matrix.masked_fill(same, math.inf).min(dim=1).values
    return functional.relu(farthest_same - nearest_other + margin).mean()
