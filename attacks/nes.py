"""NES: projected descent along gradients estimated from queries (Ilyas et al., ICML 2018, arXiv 1804.08598), L-inf.

At each step the gradient of the margin is estimated from pairs of queries x + σu and x − σu (antithetic samples) as the
sum of u times their difference; the step is signed, with momentum. u is standard normal noise; with `tile` above 1 it
is constant on squares of that side (the tiling prior of Ilyas et al., ICLR 2019, arXiv 1807.07978), which needs far
fewer queries on images. The start is uniform noise in the ball, because the gradient of the distance to the own clean
embedding is zero at the clean image.

The margins are those of `common.margins`. "ranking" is constant almost everywhere, so that most of its differences are
zero: prefer Square for it. Square is also the stronger one on most sources; NES is the second opinion, which does not
depend on squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from reid_attack_bench.contracts import Batch, Need, Oracle, QueryAttack, Reads, ThreatModel
from reid_attack_bench.errors import BenchError
from reid_attack_bench.validation import Count, Positive, Share, check_settings

from .common.draws import Draws
from .common.margins import Margin, MarginName, margin_of, needs_of


@dataclass(frozen=True)
class NES(QueryAttack):
    """Descent on one margin along estimated gradients. It asks in pairs: an odd last query is left.

    Attributes:
        margin: "embedding", "distances" or "ranking", see `common.margins`; ThreatModel.sees must show it.
        samples: queries per step, an even number.
        sigma: standard deviation of the noise, in 1/255.
        step_size: step size in 1/255; None for 2.5·epsilon/steps.
        momentum: share of the previous direction that is kept, each scaled to a mean absolute value of 1.
        tile: side of the squares on which the noise is constant, in pixels.
        guides: largest number of guide images per target; only to impersonate.
    """

    version: ClassVar[int] = 1
    citation: ClassVar[str] = "arXiv 1804.08598"
    impersonates: ClassVar[bool] = True
    margin: MarginName = "embedding"
    samples: Count = 20
    sigma: Positive = 4.0
    step_size: Positive | None = None
    momentum: Share = 0.75
    tile: Count = 4
    guides: Count = 4

    def __post_init__(self) -> None:
        check_settings(self, "nes")
        if self.samples % 2:
            raise BenchError(f"nes: samples must be even, not {self.samples}, because queries are asked in pairs")

    @property
    def needs(self) -> frozenset[Need]:
        return needs_of(self.margin)

    @property
    def reads(self) -> Reads:
        return "distances"

    def draws_each_image(self, threat: ThreatModel) -> bool:
        return True

    def search(self, oracle: Oracle, batch: Batch, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        clean, draws = batch.images, Draws(len(batch.images), generator)
        everyone = torch.arange(len(clean))
        margin = margin_of(self.margin, oracle, batch, self.guides)
        noise = draws.uniform(everyone, *clean.shape[1:]).mul_(2.0).sub_(1.0)
        current = threat.project(noise.to(clean.device).mul_(threat.radius).add_(clean), clean)
        steps = (oracle.remaining // 2 / (self.samples // 2)).ceil().clamp(min=1).to(clean)
        size = 2.5 * threat.radius / steps if self.step_size is None else torch.full_like(steps, self.step_size / 255.0)
        direction = torch.zeros_like(clean)
        while (going := oracle.remaining >= 2).any():
            gradient = self._gradient(margin, oracle, current, draws)
            scale = gradient.abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-20)
            direction = self.momentum * direction + gradient / scale
            step = (size * going.to(size)).view(-1, 1, 1, 1)
            current = threat.project(current - step * direction.sign(), clean)
        return current

    def _gradient(self, margin: Margin, oracle: Oracle, current: Tensor, draws: Draws) -> Tensor:
        """Estimated gradient of the margin at `current`, up to a factor; zero for images without queries."""
        gradient, (height, width) = torch.zeros_like(current), current.shape[-2:]
        for _ in range(self.samples // 2):
            rows = (oracle.remaining >= 2).nonzero().flatten()
            if not len(rows):
                break
            at = rows.to(current.device)
            coarse = draws.normal(rows, 3, -(-height // self.tile), -(-width // self.tile)).to(current)
            noise = coarse.repeat_interleave(self.tile, 2).repeat_interleave(self.tile, 3)[..., :height, :width]
            change = noise * (self.sigma / 255.0)
            asked = torch.cat([current[at] + change, current[at] - change]).clamp_(0.0, 1.0)
            above, below = margin.of(asked, rows.repeat(2)).chunk(2)
            gradient[at] += (above - below).view(-1, 1, 1, 1) * noise
        return gradient
