"""Distances between embeddings, by which galleries are ranked."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

Distance = Literal["euclidean", "cosine"]


def distances(queries: Tensor, gallery: Tensor, distance: Distance) -> Tensor:
    """Q×D and G×D embeddings → Q×G distances: squared Euclidean or 1 − cosine, as in torchreid."""
    if distance == "cosine":
        return 1.0 - functional.normalize(queries, dim=1) @ functional.normalize(gallery, dim=1).T
    squares = queries.square().sum(1, keepdim=True) + gallery.square().sum(1)
    return squares - 2.0 * queries @ gallery.T
