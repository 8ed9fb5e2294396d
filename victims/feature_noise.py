"""Noise on the embedding: the ranking hardly changes, the gradient is another one every time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from reid_attack_bench.contracts import State, Victim
from reid_attack_bench.errors import BenchError


class _Noisy(Victim):
    def __init__(self, victim: Victim, sigma: float) -> None:
        super().__init__()
        self.victim, self.sigma = victim, sigma
        self.name, self.distance, self.input_size = victim.name, victim.distance, victim.input_size
        self.differentiable, self.trained_on = victim.differentiable, victim.trained_on
        self.randomised = True
        self.defence = " + ".join(part for part in (victim.defence, f"feature noise, sigma {sigma:g}") if part)

    def embed(self, images: Tensor) -> Tensor:
        embeddings = self.victim.embed(images)
        # relative to the mean length of an embedding's value, so that one sigma suits every model
        scale = embeddings.detach().square().mean(dim=1, keepdim=True).sqrt()
        return embeddings + self.sigma * scale * torch.randn_like(embeddings)

    def logits(self, images: Tensor) -> Tensor | None:
        return self.victim.logits(images)


@dataclass(frozen=True)
class FeatureNoise:
    """Gaussian noise on every embedding, query and gallery.

    Attributes:
        sigma: standard deviation, as a share of the root mean square of an embedding's values.
    """

    version: ClassVar[int] = 1
    sigma: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 10:
            raise BenchError(f"feature-noise: sigma must be above 0 and at most 10, not {self.sigma!r}")

    def defend(self, victim: Victim, state: State | None = None) -> Victim:
        return _Noisy(victim, self.sigma)
