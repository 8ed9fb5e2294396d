"""Random perturbations, the controls for attacks with the same budget: what any change of that size does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from reid_attack_bench.contracts import ADDED_LATER, Attack, Batch, Need, State, ThreatModel, Victim
from reid_attack_bench.errors import BenchError
from reid_attack_bench.validation import Count, check_settings

from .common.ascent import uniform_start


@dataclass(frozen=True)
class Noise(Attack):
    """Add random noise in [−epsilon, epsilon]. The source is not used, so it is crafted once for all sources.

    By default every colour value of every pixel has a draw of its own. In blocks it is a stronger control: a network
    averages over pixels, so independent noise says little about what a change of that size can do.

    Attributes:
        blocks: (rows, columns) of equal blocks that the image is divided into, each with one draw per colour; (1, 1) is
            a tint, (2, 1) two bands. None for every pixel.
        values: "uniform" in [−epsilon, epsilon], or "corner", −epsilon or epsilon.
    """

    version: ClassVar[int] = 1
    family: ClassVar[str] = "noise"
    needs: ClassVar[frozenset[Need]] = frozenset()
    citation: ClassVar[str] = ""
    blocks: tuple[Count, Count] | None = field(default=None, metadata=ADDED_LATER)
    values: Literal["uniform", "corner"] = field(default="uniform", metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        check_settings(self, "noise")

    def draws_each_image(self, threat: ThreatModel) -> bool:
        return threat.pixels is None

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        """Adversarial images, N×3×H×W in [0, 1], within `threat` of `batch.images`; `source` is not used.

        Raises:
            BenchError: more blocks than pixels on a side.
        """
        clean, scores = batch.images, None
        if threat.pixels is not None:  # the pixels are random too
            n, _, height, width = clean.shape
            scores = torch.rand(n, height, width, generator=generator).to(clean.device)
        if self.blocks is None and self.values == "uniform":
            return threat.project(uniform_start(clean, threat.radius, generator), clean, scores)
        return threat.project(clean + threat.radius * self._unit(clean, generator), clean, scores)

    def _unit(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Noise of the shape of `images`, in units of epsilon."""
        height, width = images.shape[-2:]
        rows, columns = self.blocks or (height, width)
        if rows > height or columns > width:
            raise BenchError(f"noise: blocks {rows}×{columns} are more than the pixels of {height}×{width} images")
        drawn = torch.rand(*images.shape[:2], rows, columns, generator=generator, dtype=images.dtype)
        unit = drawn.mul(2.0).sub(1.0) if self.values == "uniform" else torch.where(drawn < 0.5, -1.0, 1.0)
        row = torch.arange(height) * rows // height
        column = torch.arange(width) * columns // width
        return unit[:, :, row][..., column].to(images)
