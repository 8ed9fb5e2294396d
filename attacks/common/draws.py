"""Random numbers of single images: those of an image do not depend on how many others are in its batch."""

from __future__ import annotations

import torch
from torch import Tensor


class Draws:
    """A CPU generator for each of `count` images, seeded in order from `generator`. `rows`, int64 M, are some of them.

    Results are on the CPU.
    """

    def __init__(self, count: int, generator: torch.Generator) -> None:
        seeds = torch.randint(2**63 - 1, (count,), generator=generator)
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]

    def uniform(self, rows: Tensor, *shape: int) -> Tensor:
        """M×shape uniform numbers in [0, 1)."""
        return torch.stack([torch.rand(shape, generator=self._generators[row]) for row in rows.tolist()])

    def normal(self, rows: Tensor, *shape: int) -> Tensor:
        """M×shape numbers of the standard normal distribution."""
        return torch.stack([torch.randn(shape, generator=self._generators[row]) for row in rows.tolist()])

    def whole(self, rows: Tensor, *shape: int) -> Tensor:
        """M×shape uniform whole numbers from 0 to 2^62 − 1."""
        return torch.stack([torch.randint(2**62, shape, generator=self._generators[row]) for row in rows.tolist()])
