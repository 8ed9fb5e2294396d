"""Noise on embeddings: the ranking hardly changes, but the gradient is random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from reid_attack_bench.contracts import Defence, State, Victim, WrappedVictim
from reid_attack_bench.errors import BenchError
from reid_attack_bench.validation import check_settings


class _Noisy(WrappedVictim):
    def __init__(self, victim: Victim, sigma: float) -> None:
        super().__init__(victim, f"feature noise, sigma {sigma:g}")
        self.sigma, self.randomised = sigma, True

    def embed(self, images: Tensor) -> Tensor:
        embeddings = self.victim.embed(images)
        # relative to the root mean square, so that one sigma fits all models
        scale = embeddings.detach().square().mean(dim=1, keepdim=True).sqrt()
        return embeddings + self.sigma * scale * torch.randn_like(embeddings)


@dataclass(frozen=True)
class FeatureNoise(Defence):
    """Gaussian noise on every embedding, query and gallery.

    Attributes:
        sigma: standard deviation, relative to the root mean square of the embedding.
    """

    version: ClassVar[int] = 1
    randomised: ClassVar[bool] = True
    sigma: Annotated[float, Field(gt=0, le=10)] = 0.2

    def __post_init__(self) -> None:
        check_settings(self, "feature-noise")

    def defend(self, victim: Victim, state: State | None = None) -> Victim:
        if victim.own_comparison:
            raise BenchError(
                f"feature-noise adds noise to embeddings, and {victim.name or type(victim).__name__} compares features "
                "in a way of its own: add noise to them in its embed"
            )
        return _Noisy(victim, self.sigma)
