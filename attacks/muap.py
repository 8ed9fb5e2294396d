"""Universal perturbation against rankings (MUAP; Ding et al., "Beyond Universal Person Re-ID Attack", TIFS 2021).

One perturbation δ is fitted on training identities of the source and then added to every image. It minimises

    mean histogram AP of f(x + δ) ranked against the clean f(x) of its batch  +  smoothness · TV(x + δ)

by sign steps with momentum on the gradient, normalised per colour. From the second epoch on, while fewer than
`saturation` of its values are at ±epsilon, δ is scaled up after each step so that this share is, and cut off there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from reid_attack_bench.contracts import (
    Batch,
    FitContext,
    LearnedAttack,
    Need,
    State,
    ThreatModel,
    TrainingData,
    Victim,
    to_cpu,
)
from reid_attack_bench.contracts.images import IMAGENET_STD
from reid_attack_bench.contracts.snapshot import global_random, restore_global_random
from reid_attack_bench.data.sampling import pk_batches
from reid_attack_bench.errors import BenchError
from reid_attack_bench.validation import Count, NonNegative, Positive, Share, check_settings

CHECKPOINT_SECONDS = 60.0  # between checkpoints; does not affect results

_CHUNK = 64  # images per pass whose activations are kept

_TINY = 1e-12


def histogram_ap(queries: Tensor, references: Tensor, same: Tensor, bins: int) -> Tensor:
    """Average precision of each query from a histogram of its distances, N values, differentiable.

    Distances of unit embeddings, 0 to 2, are shared linearly between the two nearest of `bins` equally spaced centres.
    Precision and recall are those of the bins in order (Revaud et al., ICCV 2019, arXiv 1906.07589).

    Args:
        queries: N×D.
        references: M×D.
        same: bool N×M, the correct references of each query; at least one each.
    """
    cosine = functional.normalize(queries, dim=1) @ functional.normalize(references, dim=1).T
    apart = (2.0 - 2.0 * cosine).clamp_min(_TINY).sqrt()
    width = 2.0 / (bins - 1)
    centres = torch.arange(bins, device=apart.device, dtype=apart.dtype) * width
    shares = (1.0 - (apart.unsqueeze(2) - centres).abs() / width).clamp_min(0.0)
    correct = (shares * same.unsqueeze(2)).sum(dim=1)
    up_to = torch.ones(bins, bins, device=apart.device, dtype=apart.dtype).triu()  # cumsum is not deterministic on CUDA
    precision = (correct @ up_to) / (shares.sum(dim=1) @ up_to).clamp_min(_TINY)
    return (precision * correct / same.sum(dim=1, keepdim=True)).sum(dim=1)


def total_variation(images: Tensor) -> Tensor:
    """Twice the mean squared difference of neighbours down plus across, summed over colours; a scalar.

    Values are divided by ImageNet's standard deviation first, the scale of the authors' code.
    """
    scaled = images / torch.tensor(IMAGENET_STD, device=images.device, dtype=images.dtype).view(3, 1, 1)
    down, across = scaled.diff(dim=2).square(), scaled.diff(dim=3).square()
    return 2.0 * (down.mean(dim=(0, 2, 3)).sum() + across.mean(dim=(0, 2, 3)).sum())


@dataclass(frozen=True)
class MUAP(LearnedAttack):
    """One perturbation for all images, fitted against the ranking of the source; it needs the labels of training only.

    The defaults are those of the authors' code, which takes epsilon 10 and attacks queries; `smoothness` and the other
    values are not in the paper's abstract. Different here: adversarial images are cut to [0, 1] in the fit too, and the
    perturbation of the last step is returned. It is the attack to take where the attacker cannot compute on each image.
    A pixel budget keeps the positions with the largest gradient, summed over the first epoch, the same on every image.

    Attributes:
        epochs: passes over the training images.
        batch_identities, batch_instances: P identities, or as many as there are, and K images of each per batch.
        bins: bins of the histogram, see `histogram_ap`.
        smoothness: weight of the total variation, see `total_variation`.
        momentum: share of the last direction that is kept.
        step_size: step size in 1/255.
        saturation: share of the values at ±epsilon that δ is scaled up to; 0 for never.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[Need]] = frozenset({"gradients"})
    citation: ClassVar[str] = "Ding et al., TIFS 2021"
    epochs: Count = 10
    batch_identities: Annotated[int, Field(ge=2)] = 48
    batch_instances: Annotated[int, Field(ge=2)] = 4
    bins: Annotated[int, Field(ge=2)] = 5
    smoothness: NonNegative = 10.0
    momentum: NonNegative = 0.4
    step_size: Positive = 1.02
    saturation: Share = 0.8

    def __post_init__(self) -> None:
        check_settings(self, "muap")

    @property
    def fit_work(self) -> float:
        """Six passes for each image of a training split of the size of Market-1501's."""
        return 6.0 * 12936 * self.epochs

    @property
    def craft_work(self) -> float:
        return 0.0

    def draws_each_image(self, threat: ThreatModel) -> bool:
        return True

    def fit(self, source: Victim, data: TrainingData, threat: ThreatModel, context: FitContext) -> State:
        """Fit the perturbation, H×W the size of the training images.

        With a `context.checkpoint` an interrupted fit resumes, with bitwise the same result.

        Returns:
            "perturbation": 3×H×W in [−epsilon, epsilon], in [0, 1] units.

        Raises:
            BenchError: fewer than two identities, or the checkpoint is of another fit.
        """
        people = len(np.unique(data.identities))
        if people < 2:
            raise BenchError(f"muap: {data.name} has one training identity, and a ranking takes two: give it more")
        fit = _Fit(self, source, data, threat, context, min(self.batch_identities, people))
        return {"perturbation": to_cpu({"": fit.run()})[""]}

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        """The images plus the perturbation, N×3×H×W in [0, 1], within `threat`. `source` and `generator` are not used.

        Raises:
            BenchError: no state, or images of another size.
        """
        if state is None:
            raise BenchError("muap has a perturbation to fit first: call fit, and pass its result as state")
        perturbation = state["perturbation"].to(batch.images)
        if perturbation.shape != batch.images.shape[1:]:
            raise BenchError(
                f"muap: the perturbation was fitted on images of {_size(perturbation)} pixels and cannot be added to "
                f"{_size(batch.images)}: use data of one size"
            )
        return threat.project(batch.images + perturbation, batch.images)


class _Fit:
    """The perturbation while it is fitted."""

    def __init__(
        self, settings: MUAP, source: Victim, data: TrainingData, threat: ThreatModel, context: FitContext, people: int
    ) -> None:
        self.settings, self.source, self.data, self.threat, self.context = settings, source, data, threat, context
        size = people * settings.batch_instances
        self.epoch = max(1, len(data.identities) // size)
        self.steps = settings.epochs * self.epoch if threat.epsilon else 0
        self.rows = pk_batches(data.identities, people, settings.batch_instances, context.generator)
        self.start = context.generator.get_state()
        height, width = data.images.shape[1:3]
        first = 1e-6 * torch.rand(3, height, width, generator=context.generator)
        self.perturbation = first.to(context.device) if self.steps else torch.zeros_like(first)
        self.velocity = torch.zeros_like(self.perturbation)
        self.salience = torch.zeros_like(self.perturbation[0])
        self.done = 0

    def run(self) -> Tensor:
        self._resume()
        saved_at = time.monotonic()
        while self.done < self.steps:
            note = self._step(*self._batch())
            self.context.progress(self.done, self.steps, note)
            kept = self.context.checkpoint
            if kept and self.done < self.steps and time.monotonic() - saved_at >= CHECKPOINT_SECONDS:
                kept.save(self._snapshot())
                saved_at = time.monotonic()
        return self.perturbation

    def _batch(self) -> tuple[Tensor, Tensor]:
        return self.data.batch(next(self.rows), self.context.device)

    def _step(self, clean: Tensor, identities: Tensor) -> str:
        settings, radius = self.settings, self.threat.radius
        with torch.no_grad():
            references = _embedded(self.source, clean)
        leaf = self.perturbation.clone().requires_grad_(True)
        adversarial = (clean + leaf).clamp(0.0, 1.0)
        same = identities[:, None] == identities
        precision = histogram_ap(_embedded(self.source, adversarial), references, same, settings.bins).mean()
        loss = precision + settings.smoothness * total_variation(adversarial)
        (gradient,) = torch.autograd.grad(loss, leaf)
        self.done += 1
        if self.done <= self.epoch:
            self.salience += gradient.abs().sum(dim=0)
        total = gradient.abs().sum(dim=(1, 2), keepdim=True) + _TINY
        self.velocity = settings.momentum * self.velocity + gradient / total
        moved = torch.add(self.perturbation, self.velocity.sign(), alpha=-settings.step_size / 255.0)
        self.perturbation = self._scaled(moved.clamp_(-radius, radius))
        return f"loss {loss.item():.3g} (AP {precision.item():.3g})"

    def _scaled(self, perturbation: Tensor) -> Tensor:
        """From the end of the first epoch on only the positions of a pixel budget, and later scaled up."""
        chosen = self._positions() if self.done >= self.epoch else None
        if chosen is not None:
            perturbation = perturbation * chosen
        values = (perturbation if chosen is None else perturbation[:, chosen]).abs().flatten()
        radius, share = self.threat.radius, self.settings.saturation
        at_radius = (values >= radius * (1.0 - 1e-6)).float().mean()
        if self.done <= self.epoch or float(at_radius) >= share:
            return perturbation
        least = values.sort(descending=True).values[min(int(share * len(values)), len(values) - 1)]
        return (perturbation * (radius / least.clamp_min(1e-6))).clamp_(-radius, radius)

    def _positions(self) -> Tensor | None:
        """Bool H×W, the positions of a pixel budget; None for all."""
        if self.threat.pixels is None or self.threat.pixels >= self.salience.numel():
            return None
        chosen = torch.zeros_like(self.salience, dtype=torch.bool)
        chosen.view(-1)[self.salience.flatten().topk(self.threat.pixels).indices] = True
        return chosen

    def _snapshot(self) -> State:
        state = {"perturbation": self.perturbation, "velocity": self.velocity, "salience": self.salience}
        state |= {"done": torch.tensor(self.done), "random.start": self.start}
        return to_cpu(state | global_random(self.context.device))

    def _resume(self) -> None:
        saved = self.context.checkpoint.load() if self.context.checkpoint else None
        if saved is None:
            return
        try:
            if not torch.equal(saved["random.start"], self.start) or saved["velocity"].shape != self.velocity.shape:
                raise ValueError("another fit")
            device = self.context.device
            self.perturbation, self.velocity = saved["perturbation"].to(device), saved["velocity"].to(device)
            self.salience, self.done = saved["salience"].to(device), int(saved["done"])
            for _ in range(self.done):
                next(self.rows)
            restore_global_random(saved, device)
        except (KeyError, ValueError) as error:
            raise BenchError(
                "muap: the checkpoint of this fit does not belong to this data and seed: delete it and fit again"
            ) from error


def _embedded(source: Victim, images: Tensor) -> Tensor:
    """Embeddings; of a large batch the activations are computed again for the backward pass instead of kept."""
    if len(images) <= _CHUNK or not torch.is_grad_enabled():
        return torch.cat([source.embed(part) for part in images.split(_CHUNK)])
    return torch.cat([_checkpointed(source, part) for part in images.split(_CHUNK)])


def _checkpointed(source: Victim, images: Tensor) -> Tensor:
    return checkpoint(source.embed, images, use_reentrant=False)


def _size(images: Tensor) -> str:
    return f"{images.shape[-2]}×{images.shape[-1]}"
