"""The check of saturated embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reid_attack_bench.checks.saturation import saturation
from reid_attack_bench.checks.subject import Subject
from reid_attack_bench.contracts import Victim, WrappedVictim
from reid_attack_bench.victims.defences.input_defences import BitDepth
from tests.plugins.toy import ToyVictim


class Squashed(WrappedVictim):
    """A sigmoid at the end, whose input is far from 0."""

    def __init__(self, victim: Victim, scale: float) -> None:
        super().__init__(victim)
        self.scale = scale

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        embeddings = self.victim.embed(images)
        return torch.sigmoid(self.scale * (embeddings - embeddings.detach().mean(dim=1, keepdim=True)))


class Sparse(WrappedVictim):
    """A ReLU at the end: zeros have no gradient."""

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        embeddings = self.victim.embed(images)
        return torch.relu(embeddings - embeddings.detach().quantile(0.8, dim=1, keepdim=True))


def level(victim: Victim) -> str:
    coarse = torch.rand(8, 3, 8, 4, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(coarse, size=(64, 32), mode="bilinear")
    subject = Subject(victim.eval().requires_grad_(False), images, np.arange(8) // 2, np.arange(8) % 2)
    ((found, _, _),) = saturation(subject)
    return found


@pytest.mark.parametrize(
    ("victim", "found"),
    [
        (ToyVictim(), "ok"), (Squashed(ToyVictim(), 1.0), "ok"), (Squashed(ToyVictim(), 3000.0), "fault"),
        (Sparse(ToyVictim()), "ok"), (BitDepth().defend(ToyVictim()), "ok"),
    ],
)  # fmt: skip
def test_flat_values_are_a_fault(victim: Victim, found: str) -> None:
    """Rounding in purify is none: an attack that knows it follows its straight-through gradient."""
    assert level(victim) == found
