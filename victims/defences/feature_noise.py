"""Noise on the embedding: the ranking hardly changes, the gradient is another one every time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from reid_attack_bench.contracts import Defence, State, Victim, WrappedVictim
from reid_attack_bench.validation import check_settings


class _Noisy(WrappedVictim):
    def __init__(self, victim: Victim, sigma: float) -> None:
        super().__init__(victim, f"feature noise, sigma {sigma:g}")
        self.sigma, self.randomised = sigma, True

    def embed(self, images: Tensor) -> Tensor:
        embeddings = self.victim.embed(images)
        # relative to the mean length of an embedding's value, so that one sigma suits every model
        scale = embeddings.detach().square().mean(dim=1, keepdim=True).sqrt()
        return embeddings + self.sigma * scale * torch.randn_like(embeddings)


@dataclass(frozen=True)
class FeatureNoise(Defence):
    """Gaussian noise on every embedding, query and gallery.

    Attributes:
        sigma: standard deviation, as a share of the root mean square of an embedding's values.
    """

    version: ClassVar[int] = 1
    sigma: Annotated[float, Field(gt=0, le=10)] = 0.2

    def __post_init__(self) -> None:
        check_settings(self, "feature-noise")

    def defend(self, victim: Victim, state: State | None = None) -> Victim:
        return _Noisy(victim, self.sigma)
