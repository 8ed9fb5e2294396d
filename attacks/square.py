"""Square attack for retrieval: random search with squares (Andriushchenko et al., ECCV 2020, arXiv 1912.00049), L-inf.

Start: vertical stripes one pixel wide, each ±epsilon per colour. Each query then asks about one change: in a square at
a random place the image is set to the clean image ± epsilon, one sign per colour. It is kept if the margin falls, or
stays: a list of identities rarely changes, and without drift nothing is found on it. The side is round(√(p·H·W)), at
most the shorter side of the image. p begins at `p_init` and halves after 10, 50, 200, 500, 1,000, 2,000, 4,000, 6,000
and 8,000 of 10,000 queries, scaled to the budget.

The paper attacks classifiers. For retrieval the margin is one of `common.margins`, which say what is asked and what is
known. With a pixel budget the changed positions are a random set with random signs, of which each query exchanges the
share p for others (the L0 random search of Croce et al., AAAI 2022, arXiv 2006.12834, within the same epsilon).

For sources without useful gradients, and to see whether gradients are masked: a query attack that leaves less than a
gradient attack on the same source says that they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from reid_attack_bench.contracts import Batch, Need, Oracle, QueryAttack, Reads, ThreatModel
from reid_attack_bench.validation import Count, check_settings

from .common.draws import Draws
from .common.margins import MarginName, margin_of, needs_of

HALVED = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the budget after which p is half of what it was."""


def share_changed(p_init: float, asked: Tensor, budget: Tensor) -> Tensor:
    """p of the query after `asked` of `budget` queries, int64 N, without those for references."""
    times = asked[:, None] > budget[:, None].double() * torch.tensor(HALVED, dtype=torch.double)
    return p_init * 0.5 ** times.sum(dim=1)


class _Changes:
    """Changes to the images of a batch, within its budget; `rows`, int64 M on the CPU, are some of the images."""

    def __init__(self, clean: Tensor, threat: ThreatModel, draws: Draws) -> None:
        height, width = clean.shape[-2:]
        self._clean, self._draws, self._size = clean, draws, (height, width)
        self._lower, self._upper = (clean - threat.radius).clamp_(min=0), (clean + threat.radius).clamp_(max=1)
        self._pixels = threat.pixels if threat.pixels and threat.pixels < height * width else None

    def start(self) -> Tensor:
        """Stripes; with a pixel budget that many random positions."""
        rows = torch.arange(len(self._clean))
        if self._pixels is not None:
            return self._exchanged(self._clean, rows, torch.zeros(len(rows)))
        up = self._draws.uniform(rows, 3, 1, self._size[1]) < 0.5
        return torch.where(up.to(self._clean.device), self._upper, self._lower)

    def proposed(self, found: Tensor, rows: Tensor, share: Tensor) -> Tensor:
        """`found`, M×3×H×W, with a share of each image, M values, changed at random. It may be overwritten."""
        return (self._squares if self._pixels is None else self._exchanged)(found, rows, share)

    def _squares(self, found: Tensor, rows: Tensor, share: Tensor) -> Tensor:
        height, width = self._size
        side = (share * height * width).sqrt().round().clamp(1, min(height, width)).long()
        drawn, device = self._draws.uniform(rows, 5), found.device
        step = torch.arange(int(side.max())).minimum(side[:, None] - 1)  # repeats the last pixel of a smaller square
        down = ((drawn[:, 0] * (height - side + 1)).long()[:, None] + step)[:, None, :, None].to(device)
        across = ((drawn[:, 1] * (width - side + 1)).long()[:, None] + step)[:, None, None, :].to(device)
        up = (drawn[:, 2:] < 0.5)[:, :, None, None].to(device)
        image, colour = rows.to(device)[:, None, None, None], torch.arange(3, device=device)[None, :, None, None]
        inside = (image, colour, down, across)
        found[torch.arange(len(rows), device=device)[:, None, None, None], colour, down, across] = torch.where(
            up, self._upper[inside], self._lower[inside]
        )
        return found

    def _exchanged(self, found: Tensor, rows: Tensor, share: Tensor) -> Tensor:
        assert self._pixels is not None
        at, most = rows.to(found.device), self._size[0] * self._size[1]
        clean, keys = self._clean[at], self._draws.whole(rows, most).to(found.device)
        changed = (found != clean).any(dim=1).flatten(1)
        count = changed.sum(dim=1)
        leave = (share.to(found.device) * self._pixels).round().clamp(min=1).long().minimum(count)
        enter = (leave + self._pixels - count).minimum(most - count)
        leaves = _largest(keys.masked_fill(~changed, -1), leave).view(len(rows), 1, *self._size)
        enters = _largest(keys.masked_fill(changed, -1), enter).view(len(rows), 1, *self._size)
        up = torch.stack([keys >> bit & 1 for bit in range(3)], dim=1).view_as(found) > 0
        entering = torch.where(up, self._upper[at], self._lower[at])
        return torch.where(enters, entering, torch.where(leaves, clean, found))


def _largest(keys: Tensor, counts: Tensor) -> Tensor:
    """Bool of the shape of `keys`, M×K: the `counts` largest of each row."""
    places = keys.topk(int(counts.max()), dim=1).indices
    chosen = torch.arange(places.shape[1], device=keys.device) < counts[:, None]
    return torch.zeros_like(keys, dtype=torch.bool).scatter_(1, places, chosen)


@dataclass(frozen=True)
class Square(QueryAttack):
    """Square attack on one margin; it uses all queries of its budget, unless the margin cannot fall further.

    Attributes:
        margin: "embedding", "distances" or "ranking", see `common.margins`; ThreatModel.sees must show it.
        p_init: share of the image that the first squares cover.
        guides: largest number of guide images per target; only to impersonate.
    """

    version: ClassVar[int] = 1
    citation: ClassVar[str] = "arXiv 1912.00049"
    impersonates: ClassVar[bool] = True
    margin: MarginName = "embedding"
    p_init: Annotated[float, Field(gt=0, le=1)] = 0.8
    guides: Count = 4

    def __post_init__(self) -> None:
        check_settings(self, "square")

    @property
    def needs(self) -> frozenset[Need]:
        return needs_of(self.margin)

    @property
    def reads(self) -> Reads:
        return "distances"

    def draws_each_image(self, threat: ThreatModel) -> bool:
        return True

    def search(self, oracle: Oracle, batch: Batch, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        clean, device = batch.images, batch.images.device
        changes = _Changes(clean, threat, Draws(len(clean), generator))
        margin = margin_of(self.margin, oracle, batch, self.guides)
        budget = oracle.remaining
        found = changes.start()
        least = torch.full((len(clean),), float("inf"), device=device)
        while True:
            going = (oracle.remaining > 0) & (least.cpu() > margin.least)
            rows = going.nonzero().flatten()
            if not len(rows):
                return found
            at, asked = rows.to(device), budget - oracle.remaining
            candidates = found[at]
            if asked[rows[0]] > 0:
                candidates = changes.proposed(candidates, rows, share_changed(self.p_init, asked, budget)[rows])
            value = margin.of(candidates, rows)
            better = value <= least[at]
            found[at[better]], least[at[better]] = candidates[better], value[better]


@dataclass(frozen=True)
class SquareDistances(Square):
    """Square on distances to the gallery, nearest wrong minus nearest correct: an oracle, which takes labels."""

    version: ClassVar[int] = 1
    margin: MarginName = "distances"


@dataclass(frozen=True)
class SquareTopK(Square):
    """Square on the list of the nearest identities alone: its overlap with the list of the clean image."""

    version: ClassVar[int] = 1
    margin: MarginName = "ranking"
