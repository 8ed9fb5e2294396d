"""Objectives that know who is shown: they read the labels of the batch, and the gallery's."""

from __future__ import annotations

import torch
from torch import Tensor

from .view import Scores, View


def same_identity(view: View) -> Scores:
    """Mean distance to the gallery images of the own identity (Bai et al., arXiv 1901.10650): N values.

    An image whose identity is not in the gallery leaves its own clean embedding.
    """

    def score(images: Tensor) -> Tensor:
        return _from_same(view, view.source.embed(images))

    return score


def fna(view: View) -> Scores:
    """Farthest negative attack (Bouniot et al., CVPRW 2020): N values.

    The value of `same_identity` minus the distance to the mean embedding of the identity that is farthest from the
    clean image.
    """
    farthest, there = _farthest_identity(view)

    def score(images: Tensor) -> Tensor:
        embedded = view.source.embed(images)
        return _from_same(view, embedded) - torch.where(there, view.paired(embedded, farthest), 0.0)

    return score


def fna_sum(view: View) -> Scores:
    """`fna` as its authors weigh it, N values: the sum of the distances to the own identity instead of their mean."""
    farthest, there = _farthest_identity(view)
    weights = view.same.sum(dim=1).clamp_min(1)

    def score(images: Tensor) -> Tensor:
        embedded = view.source.embed(images)
        return weights * _from_same(view, embedded) - torch.where(there, view.paired(embedded, farthest), 0.0)

    return score


def _farthest_identity(view: View) -> tuple[Tensor, Tensor]:
    """Mean embedding N×D of the other identity farthest from each clean image, and bool N, whether there is one."""
    centres = torch.stack([view.gallery[view.people == each].mean(dim=0) for each in view.people.unique()])
    others = view.people.unique()[None, :] != _identities(view)[:, None]
    apart = view.apart(view.own, centres).masked_fill(~others, -torch.inf)
    return centres[apart.argmax(dim=1)], others.any(dim=1)


def misranking(view: View) -> Scores:
    """The mis-ranking objective of Wang et al. (CVPR 2020, arXiv 2004.04199) for one image at a time: N values.

    Least distance to a clean gallery image of the own identity minus largest distance to one of another identity. The
    paper trains a generator on batches of adversarial images of each identity; here an image does not depend on others,
    so they are the clean images of the gallery. Without the paper's hinge, at which the ascent would stop.
    """

    def score(images: Tensor) -> Tensor:
        embedded = view.source.embed(images)
        apart = view.apart(embedded, view.gallery)
        same, other = view.same, ~view.same
        nearest = apart.masked_fill(other, torch.inf).amin(dim=1)
        farthest = apart.masked_fill(same, -torch.inf).amax(dim=1)
        nearest = torch.where(same.any(dim=1), nearest, view.paired(embedded, view.own))
        return nearest - torch.where(other.any(dim=1), farthest, 0.0)

    return score


def _identities(view: View) -> Tensor:
    assert view.batch.identities is not None  # "labels" is declared in `needs`
    return view.batch.identities.to(view.device)


def _from_same(view: View, embedded: Tensor) -> Tensor:
    mean = (view.apart(embedded, view.gallery) * view.same).sum(dim=1) / view.same.sum(dim=1).clamp_min(1)
    return torch.where(view.same.any(dim=1), mean, view.paired(embedded, view.own))
