"""Objectives that move an embedding away from that of its own clean image, or from those of its own identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from reid_attack_bench.contracts import Batch, Ensemble, Victim, to_float

from ..members import over_members
from .view import Scores, View

References = Literal["self", "same_identity"]

_CHUNK = 64  # reference images per forward pass


def embedding_distance(
    source: Victim, batch: Batch, references: References, start: list[Tensor] | None = None
) -> Callable[[Tensor], Tensor]:
    """Mean distance from the embedding of each image to its reference embeddings; see `metric` for the references.

    On an ensemble the members' distances are averaged, each divided by its value at the start; see `over_members`.
    """
    if isinstance(source, Ensemble):
        return over_members(lambda member: embedding_distance(member, batch, references), source, start=start)
    with torch.no_grad():
        own = source.embed(batch.images)
        others, weights = own, torch.eye(len(own), device=own.device)
        if references == "same_identity":
            others, weights = _with_same_identity(source, batch, own)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return lambda images: (source.compare(source.embed(images), others) * weights).sum(dim=1)


def _with_same_identity(source: Victim, batch: Batch, own: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings of the M references (images of the batch's identities, then the batch itself) and 0/1 weights N×M."""
    assert batch.identities is not None  # both are declared in `needs`
    assert batch.references is not None
    people = torch.from_numpy(batch.references.identities)
    chosen = torch.isin(people, batch.identities.cpu()).nonzero().flatten()
    parts = [
        source.embed(to_float(batch.references.images[rows.numpy()], batch.images.device))
        for rows in chosen.split(_CHUNK)
        if len(rows)
    ]
    same = batch.identities.cpu()[:, None] == people[chosen][None, :]
    alone = torch.diag(~same.any(dim=1))
    return torch.cat([*parts, own]), torch.cat([same, alone], dim=1).to(own)


def own_distance(view: View) -> Scores:
    """Distance to the embedding of the own clean image: N values, `embedding_distance` with references "self"."""
    return lambda images: view.paired(view.source.embed(images), view.own)
