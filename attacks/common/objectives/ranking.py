"""Ranking objectives without labels: what a query finds first is to be found late.

The gallery images nearest to the clean query stand in for its correct matches, and images further down its list for
wrong ones. Nothing but the images of the gallery is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .view import Scores, View

SOFTNESS = 0.1
"""Width of the sigmoid that stands in for a step, as a share of the mean gap between near and wrong images."""


@dataclass(frozen=True)
class Ranks:
    """Ranks, counted from 1, of the gallery images that stand in for correct and wrong matches.

    In a gallery of fewer than `last` images, an eighth at most is near, and the wrong ones are its farther half if that
    begins before `first`.

    Attributes:
        near: number of near images, those of rank 1 to `near`.
        first, last: ranks of the first and the last wrong image.
    """

    near: int = 8
    first: int = 31
    last: int = 200

    def slices(self, gallery: int) -> tuple[slice, slice]:
        """Places, counted from 0, of near and wrong images in a list of `gallery` images."""
        if gallery >= self.last:
            return slice(0, self.near), slice(self.first - 1, self.last)
        return slice(0, min(self.near, -(-gallery // 8))), slice(min(self.first - 1, gallery // 2), gallery)


RANKS = Ranks()


def ranking(view: View, ranks: Ranks) -> Scores:
    """Share of the pairs of a near and a wrong image in which the wrong one is nearer, smoothed: N values in [0, 1].

    A pair in the wanted order no longer counts, so the ascent turns to the others.
    """
    compare = _comparison(view, ranks)

    def score(images: Tensor) -> Tensor:
        near, wrong = compare(images)
        return _behind(near, wrong).mean(dim=(1, 2))

    return score


def smooth_ap(view: View, ranks: Ranks) -> Scores:
    """Minus the average precision of the near images in a list with the wrong ones, smoothed: N values in [−1, 0].

    The smooth form is that of Brown et al. (ECCV 2020, arXiv 2007.12163), a loss for training, which is climbed here.
    """
    compare = _comparison(view, ranks)

    def score(images: Tensor) -> Tensor:
        near, wrong = compare(images)
        place = _behind(near, near).sum(dim=2) + 0.5  # an image counts as half behind itself
        return -(place / (place + _behind(near, wrong).sum(dim=2))).mean(dim=1)

    return score


def mean_place(view: View, ranks: Ranks) -> Scores:
    """Minus the average precision of the near images in the whole gallery, without smoothing: N values in [−1, 0]."""
    order = view.apart(view.own, view.gallery).argsort(dim=1)
    chosen = order[:, ranks.slices(len(view.gallery))[0]]

    def score(images: Tensor) -> Tensor:
        apart = view.distances(images, view.gallery)
        near = apart.gather(1, chosen).sort(dim=1).values.contiguous()
        before = torch.searchsorted(apart.sort(dim=1).values.contiguous(), near)  # of the whole gallery
        found = torch.arange(1, near.shape[1] + 1, device=near.device)
        return -(found / (before + 1)).mean(dim=1)

    return score


def _comparison(view: View, ranks: Ranks) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Function of images: their distances to near and to wrong images, in widths of the sigmoid."""
    clean = view.apart(view.own, view.gallery)
    order = clean.argsort(dim=1)
    near, wrong = (order[:, places] for places in ranks.slices(len(view.gallery)))
    gap = clean.gather(1, wrong).mean(dim=1, keepdim=True) - clean.gather(1, near).mean(dim=1, keepdim=True)
    width = SOFTNESS * gap.clamp_min(1e-6)

    def compare(images: Tensor) -> tuple[Tensor, Tensor]:
        apart = view.distances(images, view.gallery) / width
        return apart.gather(1, near), apart.gather(1, wrong)

    return compare


def _behind(these: Tensor, others: Tensor) -> Tensor:
    """N×A and N×B distances → N×A×B, 1 where the former is larger by far and 0 where it is smaller by far."""
    return (these[:, :, None] - others[:, None, :]).sigmoid()
