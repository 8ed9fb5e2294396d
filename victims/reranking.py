"""Tricks at evaluation time: k-reciprocal re-ranking and query expansion, as wrappers of any victim.

Both see all queries and the whole gallery of an evaluation at once, so that adversarial queries change each other's
results. They are deterministic and leave embeddings as they are: attacks climb the inner model, as does a query attack
that asks it, and what re-ranking does to their images is measured in the ranking alone.

Distances are computed in blocks and neighbours kept in sparse form, so that the N×N matrix of all N images, 35 GB for
MSMT17, is never in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import Defence, State, Victim, WrappedVictim
from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics.ranking import compared_rows
from reid_attack_bench.validation import Count, NonNegative, Share, check_settings

_PAIRS = 2**22  # distances in memory at a time, 16 MiB

_ROWS = 256  # images whose neighbours' neighbours are compared at a time

Rows = Callable[[slice], Tensor]
"""Rows of a distance matrix, as M×N on any device."""


@dataclass(frozen=True)
class KReciprocal(Defence):
    """k-reciprocal re-ranking (Zhong et al., CVPR 2017, arXiv 1701.08398), with the values of the paper's code.

    An image is encoded by its k-reciprocal nearest neighbours; the distance of two images is the Jaccard distance of
    their codes, mixed with the original one. See `k_reciprocal`.

    Attributes:
        k1: number of nearest neighbours among which reciprocal ones are looked for.
        k2: number of nearest neighbours, itself among them, over which codes are averaged; 1 for none.
        lambda_value: weight of the original distance; the Jaccard distance has the rest.
    """

    version: ClassVar[int] = 1
    k1: Count = 20
    k2: Count = 6
    lambda_value: Share = 0.3

    def __post_init__(self) -> None:
        check_settings(self, "k-reciprocal")

    def defend(self, victim: Victim, state: State | None = None) -> Victim:
        return _KReciprocal(_first(victim, "k-reciprocal"), self)


@dataclass(frozen=True)
class QueryExpansion(Defence):
    """α query expansion (Radenović et al., arXiv 1711.02512), with the values of FastReID.

    A query is replaced by the weighted mean of itself, with weight 1, and of its nearest gallery images, weighted by
    their cosine similarity to the power of `alpha`; negative ones count as 0. Alpha 0 is the average query expansion of
    Chum et al. (ICCV 2007). The gallery stays as it is, unless `gallery` is set.

    Attributes:
        k: number of nearest images in the mean.
        alpha: power of the similarity.
        gallery: expand gallery images too, and look for the neighbours of all images among both sides, as FastReID
            does; there an image is one of its own k nearest.
    """

    version: ClassVar[int] = 1
    k: Count = 5
    alpha: NonNegative = 3.0
    gallery: bool = False

    def __post_init__(self) -> None:
        check_settings(self, "query-expansion")

    def defend(self, victim: Victim, state: State | None = None) -> Victim:
        if victim.own_comparison:
            raise BenchError(
                f"query-expansion averages embeddings, and {victim.name or type(victim).__name__} compares features in "
                "a way of its own: use k-reciprocal, which reads distances alone"
            )
        return _Expanded(_first(victim, "query-expansion"), self)


def _first(victim: Victim, name: str) -> Victim:
    """`victim`, if it does not re-rank yet."""
    if victim.reranks:
        raise BenchError(
            f"{name}: {victim.name or type(victim).__name__} re-ranks already ({victim.defence}), and the distances of "
            "one re-ranking are nothing that another could begin with: let it defend the inner victim"
        )
    return victim


class _KReciprocal(WrappedVictim):
    def __init__(self, victim: Victim, settings: KReciprocal) -> None:
        super().__init__(victim, "k-reciprocal re-ranking")
        self.citation, self.settings = "arXiv 1701.08398", settings

    def rerank(self, query: Any, gallery: Any) -> Iterator[Tensor]:
        everyone, settings = torch.cat([query, gallery]), self.settings
        rows = _rows_of(self, everyone)
        return k_reciprocal(rows, len(query), len(everyone), settings.k1, settings.k2, settings.lambda_value)


class _Expanded(WrappedVictim):
    def __init__(self, victim: Victim, settings: QueryExpansion) -> None:
        super().__init__(victim, "query expansion")
        self.citation, self.settings = "arXiv 1711.02512", settings

    def rerank(self, query: Any, gallery: Any) -> Iterator[Tensor]:
        settings = self.settings
        if not settings.gallery:
            own = torch.ones(len(query), 1, device=query.device)
            query = _expanded(query, gallery, settings.k, settings.alpha, own)
        else:
            everyone = torch.cat([query, gallery])
            expanded = _expanded(everyone, everyone, settings.k, settings.alpha)
            query, gallery = expanded.split([len(query), len(gallery)])
        for part in query.split(max(1, _PAIRS // len(gallery))):
            yield self.compare(part, gallery)


def _rows_of(victim: Victim, everyone: Tensor) -> Rows:
    """Rows of the distances of all images to all; the least is 0, also by a comparison that has no such zero."""
    if not victim.own_comparison:
        return lambda chosen: victim.compare(everyone[chosen], everyone).clamp_min(0.0)

    def rows(chosen: slice) -> Tensor:
        apart = torch.cat(list(compared_rows(victim.compare, everyone[chosen], everyone)))
        return apart - apart.amin(dim=1, keepdim=True)

    return rows


def _expanded(images: Tensor, among: Tensor, k: int, alpha: float, own: Tensor | None = None) -> Tensor:
    """Weighted means of the k nearest of `among` of each image, and of itself with the weight `own`, N×1, if given.

    Nearest by cosine similarity, as in the published code, whatever the distance that ranks.
    """
    unit, parts = functional.normalize(among, dim=1), []
    for start in range(0, len(images), size := max(1, _PAIRS // len(among))):
        part = images[start : start + size]
        nearest = (functional.normalize(part, dim=1) @ unit.T).topk(min(k, len(among)), dim=1)
        weights = nearest.values.clamp_min(0.0).pow(alpha)
        total, mean = weights.sum(dim=1, keepdim=True), torch.einsum("nk,nkd->nd", weights, among[nearest.indices])
        if own is not None:
            mine = own[start : start + size]
            total, mean = total + mine, mean + mine * part
        parts.append(mean / total.clamp_min(1e-12))
    return torch.cat(parts)


# size: the settings of the paper, and the distances
def k_reciprocal(rows: Rows, queries: int, images: int, k1: int, k2: int, lambda_value: float) -> Iterator[Tensor]:
    """Re-ranked distances of the first `queries` of all images to the others, in blocks of rows.

    As the code of Zhong et al., which differs from their formulas in three details that all later code shares: rows of
    distances are divided by their largest value, codes by their sum, and a neighbour's set joins if it shares more
    than, not at least, two thirds. With fewer than `k1` other images all are neighbours.

    Args:
        rows: distances of images to all, the squared Euclidean ones or 1 − cosine, 0 at least. The scale has no effect.
        images: number of all images, the queries first.
        k1, k2, lambda_value: see `KReciprocal`.
    """
    size = max(1, _PAIRS // images)
    blocks = [slice(start, min(start + size, images)) for start in range(0, images, size)]
    nearest, largest = np.empty((images, min(k1 + 1, images)), np.int64), np.empty(images, np.float32)
    for block in blocks:
        apart = rows(block)
        nearest[block] = apart.topk(nearest.shape[1], dim=1, largest=False, sorted=True).indices.cpu().numpy()
        largest[block] = _largest(apart)
    codes = _codes(rows, blocks, _neighbours(nearest, k1), largest)
    if k2 > 1:
        count = min(k2, nearest.shape[1])
        owners = np.repeat(np.arange(images), count)
        averaged = sparse.csr_matrix(
            (np.full(len(owners), 1.0 / count, np.float32), (owners, nearest[:, :count].ravel())), (images, images)
        )
        codes = averaged @ codes
    gallery = codes[queries:].tocsc()
    for start in range(0, queries, size):
        block = slice(start, min(start + size, queries))
        apart = rows(block)
        original = apart[:, queries:] / torch.from_numpy(largest[block])[:, None].to(apart)
        jaccard = np.stack([_jaccard(codes, gallery, row) for row in range(block.start, block.stop)])
        yield (1.0 - lambda_value) * torch.from_numpy(jaccard).to(original) + lambda_value * original


def _largest(apart: Tensor) -> np.ndarray:
    """The largest finite value of each row, and at least a tiny one."""
    finite = apart.masked_fill(apart.isinf(), 0.0)
    return finite.amax(dim=1).clamp_min(1e-12).cpu().numpy()


def _neighbours(nearest: np.ndarray, k1: int) -> sparse.csr_matrix:
    """Bool N×N: the expanded set of k-reciprocal neighbours of each image, in its row.

    Args:
        nearest: int64 N×(k1 + 1), the nearest images of each, itself among them.
    """
    images = len(nearest)
    half = nearest[:, : round(k1 / 2) + 1]
    mutual, mutual_half = _reciprocal(nearest), _reciprocal(half)
    found = []
    for start in range(0, images, _ROWS):
        block = slice(start, min(start + _ROWS, images))
        near, kept = nearest[block], mutual[block]
        sets, valid = half[near], mutual_half[near] & kept[:, :, None]  # of the neighbours, M×(k1 + 1)×(k1/2 + 1)
        shared = (sets[..., None] == np.where(kept, near, -1)[:, None, None, :]).any(axis=3) & valid
        joins = 3 * shared.sum(axis=2) > 2 * valid.sum(axis=2)
        rows, places = np.nonzero(kept)
        members, owners, seats = np.nonzero(valid & joins[:, :, None])
        pairs = np.concatenate([rows, members]), np.concatenate([near[rows, places], sets[members, owners, seats]])
        found.append(sparse.csr_matrix((np.ones(len(pairs[0]), bool), pairs), (len(near), images)))
    return sparse.vstack(found).tocsr()


def _reciprocal(nearest: np.ndarray) -> np.ndarray:
    """Bool of the shape of `nearest`: whether an image is among the nearest of its neighbour, too."""
    images = np.arange(len(nearest))
    return np.concatenate(
        [
            (nearest[nearest[start : start + _ROWS]] == images[start : start + _ROWS, None, None]).any(axis=2)
            for start in range(0, len(nearest), _ROWS)
        ]
    )


def _codes(rows: Rows, blocks: list[slice], neighbours: sparse.csr_matrix, largest: np.ndarray) -> sparse.csr_matrix:
    """Float32 N×N: exp(−distance) of the neighbours, divided by its sum over them."""
    weights = np.empty(neighbours.nnz, np.float32)
    for block in blocks:
        first, last = neighbours.indptr[block.start], neighbours.indptr[block.stop]
        counts = np.diff(neighbours.indptr[block.start : block.stop + 1])
        owners = np.repeat(np.arange(len(counts)), counts)
        apart = rows(block)
        chosen = torch.from_numpy(owners), torch.from_numpy(neighbours.indices[first:last].astype(np.int64))
        near = apart[chosen[0].to(apart.device), chosen[1].to(apart.device)].cpu().numpy()
        near = np.exp(-near / largest[block][owners])
        weights[first:last] = near / np.bincount(owners, near, len(counts))[owners]
    return sparse.csr_matrix((weights, neighbours.indices, neighbours.indptr), neighbours.shape)


def _jaccard(codes: sparse.csr_matrix, gallery: sparse.csc_matrix, row: int) -> np.ndarray:
    """Jaccard distances of one query to the gallery, float32 G: 1 − Σ min / Σ max of the codes, whose sums are 1."""
    own = slice(codes.indptr[row], codes.indptr[row + 1])
    columns, values = codes.indices[own], codes.data[own]
    starts, ends = gallery.indptr[columns], gallery.indptr[columns + 1]
    counts = ends - starts
    places = np.arange(counts.sum()) + np.repeat(starts - (counts.cumsum() - counts), counts)
    least = np.minimum(np.repeat(values, counts), gallery.data[places])
    shared = np.bincount(gallery.indices[places], least, gallery.shape[0])
    return (1.0 - shared / (2.0 - shared)).astype(np.float32)
