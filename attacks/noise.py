"""Uniform noise, the control for gradient attacks with the same budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from reid_attack_bench.contracts import Attack, Batch, Need, State, ThreatModel, Victim

from .common.ascent import uniform_start


@dataclass(frozen=True)
class Noise(Attack):
    """Add independent uniform noise in [−epsilon, epsilon] to every colour value. The source is not used."""

    version: ClassVar[int] = 1
    family: ClassVar[str] = "noise"
    needs: ClassVar[frozenset[Need]] = frozenset()
    citation: ClassVar[str] = ""

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        scores = None
        if threat.pixels is not None:  # the pixels are random too
            n, _, height, width = batch.images.shape
            scores = torch.rand(n, height, width, generator=generator).to(batch.images.device)
        return threat.project(uniform_start(batch.images, threat.radius, generator), batch.images, scores)
