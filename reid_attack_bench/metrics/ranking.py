"""CMC, mAP and mINP per query, by the protocols of Market-1501, of CUHK03 and of a change of clothes.

The values equal those of torchreid's `evaluate_rank`, which averages over queries in Python. Here they are kept per
query, for confidence intervals and comparisons between attacks, and computed for many queries at a time.

The gallery is not argsorted. The position of the nth correct match of a query is n plus the number of nearer images of
other identities; counting these only requires sorted distances. The result depends on the order of ties only if a
correct match and another identity have exactly the same distance. If ties could change the first match, or AP or INP
by more than 5e-7, the query is sorted by numpy's argsort, as torchreid does for all; otherwise the match goes first.
(The trapezoid AP then differs by less than 1e-6.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import Distance, RankingProtocol
from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics.blocks import as_floats
from reid_attack_bench.metrics.bootstrap import intervals
from reid_attack_bench.metrics.pairs import SameIdentity

_ENTRIES = 2**22  # distances in memory at a time: 263 queries of Market-1501, 16 MiB

_COMPARED = 64, 1024  # queries and gallery images that a comparison of a victim's own gets at a time

_SORTED = 2**17  # distances that a CPU thread sorts at a time; they fit in its cache

_TOLERANCE = 5e-7  # of AP and INP: largest difference from torchreid

_Block = np.ndarray | Tensor  # rows of distances; a tensor if they are on another device

_REPEATS = 10  # random single-shot galleries of the CUHK03 protocol


@dataclass(frozen=True)
class Ranking:
    """Ranking results of N queries. Junk is removed from the gallery: same identity and camera as the query.

    Attributes:
        valid: bool N; whether the gallery has a correct match. Other queries are not counted.
        first: int64 N; 0-based position of the first correct match; −1 if not valid.
        ap: float64 N in [0, 1]; average precision; NaN if not valid.
        ap_trapezoid: float64 N in [0, 1]; average precision of the Matlab code of Market-1501 (Zheng et al., ICCV
            2015): the area under the curve of precision over recall by the trapezoid rule; NaN if not valid. For
            comparison with values that such code computed; nothing is ordered by it.
        inp: float64 N in [0, 1]; inverse negative penalty (Ye et al., TPAMI 2021): number of correct matches divided by
            the 1-based position of the last; NaN if not valid.
        hits: float32 N×R in [0, 1]; whether a correct match is within the first r + 1; NaN if not valid. 0 or 1 for
            Market-1501, an average over ten random galleries for CUHK03. If the gallery is shorter than R, the last
            value is repeated.
    """

    valid: np.ndarray
    first: np.ndarray
    ap: np.ndarray
    ap_trapezoid: np.ndarray
    inp: np.ndarray
    hits: np.ndarray


def distance_rows(queries: Tensor, gallery: Tensor, distance: Distance) -> Iterator[Tensor]:
    """Blocks of rows of the distance matrix, so that the whole matrix is never in memory.

    Blocks are rounded as the matrices of torchreid, which differ from contracts.distances in the last digit.

    Args:
        queries, gallery: float Q×D and G×D embeddings on one device; the blocks stay there.
    """
    rows = _rows(len(gallery))
    if distance == "cosine":
        gallery, one = functional.normalize(gallery, dim=1), gallery.new_ones(())
        for part in queries.split(rows):
            yield torch.addmm(one, functional.normalize(part, dim=1), gallery.T, alpha=-1.0)
        return
    squares = torch.cat([part.square().sum(1) for part in gallery.split(_rows(gallery.shape[1]))])
    for part in queries.split(rows):
        yield (part.square().sum(1, keepdim=True) + squares).addmm_(part, gallery.T, alpha=-2.0)


def compared_rows(compare: Callable[[Tensor, Tensor], Tensor], queries: Tensor, gallery: Tensor) -> Iterator[Tensor]:
    """Blocks of rows of the distance matrix by a comparison of a victim's own, see `Victim.compare`.

    It is called with few images at a time, since it may hold many values for each pair.

    Args:
        compare: M×D and N×D → M×N distances.
        queries, gallery: float Q×D and G×D on one device; the blocks stay there.
    """
    for part in queries.split(min(_COMPARED[0], _rows(len(gallery)))):
        yield torch.cat([compare(part, columns) for columns in gallery.split(_COMPARED[1])], dim=1)


# size: the signature of torchreid's `evaluate_rank`; one pass over the queries
def rank(
    distances: np.ndarray | Tensor | Iterable[np.ndarray | Tensor],
    query_identities: np.ndarray,
    gallery_identities: np.ndarray,
    query_cameras: np.ndarray,
    gallery_cameras: np.ndarray,
    *,
    protocol: RankingProtocol = "market1501",
    query_clothes: np.ndarray | None = None,
    gallery_clothes: np.ndarray | None = None,
    max_rank: int = 50,
    rng: np.random.RandomState | None = None,
) -> Ranking:
    """Rank the gallery for every query, as torchreid's `evaluate_rank` does, ties included (see above).

    Args:
        distances: float Q×G, smaller is nearer; or consecutive blocks of its rows, as from `distance_rows`,
            so that the whole matrix need not be in memory. Tensors are ranked on their device.
        query_identities, query_cameras: int Q.
        gallery_identities, gallery_cameras: int G.
        protocol: "market1501"; "cuhk03" for the single-gallery-shot CMC of the classic CUHK03 splits (the 767/700
            split of CUHK03 is evaluated as Market-1501); or "clothes", where gallery images of the same identity in the
            same clothes are junk too (the cloth-changing setting of LTCC, Qian et al., ACCV 2020).
        query_clothes, gallery_clothes: int Q and G, read by "clothes" only.
        max_rank: R, the number of ranks in `hits`.
        rng: draws the galleries of "cuhk03"; RandomState(s) reproduces torchreid after np.random.seed(s).

    Raises:
        BenchError: shapes do not agree, a distance is NaN, no query has a correct match in the
            gallery, "cuhk03" without `rng`, or "clothes" without labels of clothes.
    """
    if protocol not in get_args(RankingProtocol):
        raise BenchError(f"unknown ranking protocol {protocol!r}: use market1501, cuhk03 or clothes")
    if protocol == "clothes" and (query_clothes is None or gallery_clothes is None):
        raise BenchError(
            "the clothes protocol needs labels of clothes, and the data set has none: rank it as market1501"
        )
    if protocol == "cuhk03" and rng is None:
        raise BenchError("the cuhk03 protocol draws galleries at random: pass rng=np.random.RandomState(seed)")
    if max_rank < 1:
        raise BenchError(f"max_rank must be at least 1, not {max_rank}")
    clothes = (query_clothes, gallery_clothes) if protocol == "clothes" else ()
    same_identity = SameIdentity.of(query_identities, gallery_identities, query_cameras, gallery_cameras, *clothes)
    query_identities, gallery_identities = same_identity.query.identities, same_identity.gallery.identities

    count = len(query_identities)
    scores = _Scores.empty(count)
    hits = np.full((count, max_rank), np.nan, np.float32)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for start, block in _blocks(distances, count, len(gallery_identities)):
            to_sort = np.arange(len(block))
            if protocol != "cuhk03":
                rows, columns = same_identity.pairs(start, len(block))
                correct = ~same_identity.junk(start + rows, columns)
                owners, positions, to_sort = _count(block, rows, columns, correct, pool)
                scores.put(slice(start, start + len(block)), _scores(owners, positions, len(block)))
            if len(to_sort) == 0:
                continue
            part = start + to_sort
            order = np.argsort(_fetched(block[to_sort]), axis=1)  # torchreid's call
            same = query_identities[part, None] == gallery_identities[order]
            junk = same & same_identity.junk(part[:, None], order)
            scores.put(part, _scores(*_positions(same & ~junk, junk), len(part)))
            if protocol == "cuhk03":
                assert rng is not None
                for row in np.flatnonzero(scores.first[part] >= 0):
                    kept = gallery_identities[order[row][~junk[row]]]
                    hits[start + row] = _single_shot_hits(kept, query_identities[start + row], max_rank, rng)
    if protocol != "cuhk03":
        hits = (scores.first[:, None] <= np.arange(max_rank)).astype(np.float32)

    valid = scores.first >= 0
    if not valid.any():
        raise BenchError(
            f"none of the {count} queries has a correct match in the gallery: their identities must occur there, "
            "seen by another camera" + " and in other clothes" * (protocol == "clothes")
        )
    hits[~valid] = np.nan
    return Ranking(valid=valid, **vars(scores), hits=hits)


def with_misses(ranking: Ranking, missed: np.ndarray, gallery: int) -> Ranking:
    """The ranking with the queries `missed` (bool N) counted as misses.

    Their hits, AP and INP are 0; their first match is at position `gallery`, the number of gallery images.
    """
    missed = missed & ranking.valid
    return Ranking(
        valid=ranking.valid,
        first=np.where(missed, gallery, ranking.first),
        ap=np.where(missed, 0.0, ranking.ap),
        ap_trapezoid=np.where(missed, 0.0, ranking.ap_trapezoid),
        inp=np.where(missed, 0.0, ranking.inp),
        hits=np.where(missed[:, None], np.float32(0.0), ranking.hits),
    )


def mean_of(draws: Sequence[Ranking]) -> Ranking:
    """Mean over rankings of the same queries and gallery images, such as those of the draws of a randomised victim.

    The position of the first correct match is the median, the lower one of two.
    """
    if len(draws) == 1:
        return draws[0]
    valid = draws[0].valid
    if any((draw.valid != valid).any() for draw in draws):
        raise BenchError("rankings to average differ in the queries that have a correct match")
    first = np.sort([draw.first for draw in draws], axis=0)[(len(draws) - 1) // 2]
    names = [each.name for each in fields(Ranking) if each.name not in ("valid", "first")]
    means = {name: np.mean([getattr(draw, name) for draw in draws], axis=0) for name in names}
    return Ranking(valid=valid, first=first, **means)


def bounds(ranking: Ranking, identities: np.ndarray | None) -> dict[str, float]:
    """95 % intervals of Rank-1 and mAP in percent, as rank1_low, rank1_high, mAP_low and mAP_high.

    Args:
        identities: int N, of all queries; they are resampled. None resamples queries. See `bootstrap.interval`.
    """
    columns = np.stack([ranking.hits[:, 0], ranking.ap], axis=1)[ranking.valid]
    ends = 100.0 * intervals(columns, None if identities is None else identities[ranking.valid], seed=0)
    return {
        f"{name}_{end}": float(ends[i, j])
        for i, name in enumerate(("rank1", "mAP"))
        for j, end in enumerate(("low", "high"))
    }


def summary(ranking: Ranking) -> dict[str, float]:
    """rank1, rank5, rank10, rank20, mAP, mINP and mAP_trapezoid over the valid queries, in percent (0 … 100)."""
    valid = ranking.valid
    if not valid.any():
        raise BenchError("no query has a correct match in the gallery: nothing to average")
    cmc = ranking.hits[valid].mean(axis=0, dtype=np.float64)
    scores = {f"rank{k}": 100.0 * float(cmc[k - 1]) for k in (1, 5, 10, 20) if k <= len(cmc)}
    means = {"mAP": ranking.ap, "mINP": ranking.inp, "mAP_trapezoid": ranking.ap_trapezoid}
    return scores | {name: 100.0 * float(values[valid].mean()) for name, values in means.items()}


# size: the arrays of `rank`
def top_matches(
    distances: np.ndarray | Tensor | Iterable[np.ndarray | Tensor],
    query_identities: np.ndarray,
    gallery_identities: np.ndarray,
    query_cameras: np.ndarray,
    gallery_cameras: np.ndarray,
    k: int = 10,
    *,
    query_clothes: np.ndarray | None = None,
    gallery_clothes: np.ndarray | None = None,
) -> np.ndarray:
    """Gallery indices of the k nearest images per query, without junk: int64 Q×k, −1 if there are fewer.

    Arguments as for `rank`; with clothes, images of the same identity in the same clothes are junk too.
    """
    labels = query_identities, gallery_identities, query_cameras, gallery_cameras, query_clothes, gallery_clothes
    nearest = NearestImages(SameIdentity.of(*labels), k)
    for _ in nearest.watch(block for _, block in _blocks(distances, len(nearest.found), len(nearest.same.gallery))):
        pass
    return nearest.found


class NearestImages:
    """The k nearest gallery images of each query, without junk, taken from blocks of rows that pass through.

    Attributes:
        same: pairs of one identity.
        found: int64 Q×k, gallery indices; −1 if there are fewer.
    """

    def __init__(self, same: SameIdentity, k: int) -> None:
        self.same, self.found = same, np.full((len(same.query), k), -1, np.int64)

    def watch(self, blocks: Iterable[_Block]) -> Iterator[_Block]:
        """The blocks as they are, each after its nearest images were taken."""
        start, k = 0, self.found.shape[1]
        for block in blocks:
            rows, columns = self.same.pairs(start, len(block))
            junk = self.same.junk(start + rows, columns)
            kept = block.clone() if isinstance(block, Tensor) else torch.from_numpy(block.copy())
            kept[torch.from_numpy(rows[junk]), torch.from_numpy(columns[junk])] = torch.nan  # sorts behind infinity
            nearest, indices = kept.topk(min(k, kept.shape[1]), dim=1, largest=False)
            indices = indices.masked_fill(nearest.isnan(), -1)
            self.found[start : start + len(block), : indices.shape[1]] = indices.cpu().numpy()
            start += len(block)
            yield block


@dataclass(frozen=True)
class _Scores:
    """What the positions of the correct matches of N queries decide, see `Ranking`."""

    first: np.ndarray
    ap: np.ndarray
    ap_trapezoid: np.ndarray
    inp: np.ndarray

    @classmethod
    def empty(cls, count: int) -> _Scores:
        """Scores of `count` queries without a correct match."""
        return cls(np.full(count, -1, np.int64), *(np.full(count, np.nan) for _ in range(3)))

    def put(self, queries: slice | np.ndarray, scores: _Scores) -> None:
        for name, values in vars(self).items():
            values[queries] = getattr(scores, name)


def _blocks(
    distances: np.ndarray | Tensor | Iterable[np.ndarray | Tensor], queries: int, gallery: int
) -> Iterator[tuple[int, _Block]]:
    """Yield (index of the first query, block of consecutive rows), at most _ENTRIES distances per block."""
    start, rows = 0, _rows(gallery)
    for given in [distances] if isinstance(distances, (np.ndarray, Tensor)) else distances:
        if given.ndim != 2 or given.shape[1] != gallery or start + len(given) > queries:
            raise BenchError(
                f"distances of {queries} queries to {gallery} gallery images must be {queries}×{gallery}, but a block "
                f"of shape {tuple(given.shape)} starts at row {start}"
            )
        for offset in range(0, len(given), rows):
            block = as_floats(given[offset : offset + rows])
            if np.isnan(float(block.min())):  # a minimum keeps NaN: one pass without a copy
                row = start + int(np.isnan(_fetched(block)).any(axis=1).argmax())
                raise BenchError(f"the distances of query {row} contain NaN: check the embeddings of the victim")
            yield start, block
            start += len(block)
    if start != queries:
        raise BenchError(f"got distances for {start} queries, but {queries} query identities")


def _fetched(block: _Block) -> np.ndarray:
    return block if isinstance(block, np.ndarray) else block.cpu().numpy()


def _rows(columns: int) -> int:
    return max(1, _ENTRIES // columns)


def _count(
    block: _Block, rows: np.ndarray, columns: np.ndarray, correct: np.ndarray, pool: ThreadPoolExecutor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of the correct matches of n queries, without an argsort of their galleries.

    Args:
        block: distances n×G.
        rows, columns: pairs of query and gallery image of the same identity, sorted by row.
        correct: bool per pair; whether its two images are from different cameras.

    Returns:
        Row and 1-based position of every correct match, sorted by distance within a row; and the rows whose result
        depends on the order of ties by more than the tolerance.
    """
    owners, near = rows[correct], _fetched(block[rows, columns])[correct]
    near = near[np.lexsort((near, owners))]
    counts = np.bincount(owners, minlength=len(block))
    nth = np.arange(len(owners)) - (counts.cumsum() - counts)[owners]
    wanted = np.full((len(block), counts.max()), np.inf, near.dtype)
    wanted[owners, nth] = near
    if isinstance(block, np.ndarray):
        nearer, or_as_far = _nearer_by_threads(block, rows, columns, wanted, pool)
    else:
        nearer, or_as_far = _nearer_on_device(block, rows, columns, wanted)
    best, worst = (others[owners, nth] + nth + 1 for others in (nearer, or_as_far))

    tied = best < worst
    behind = (nth + 1)[tied] * (1.0 / best[tied] - 1.0 / worst[tied])
    doubt = np.bincount(owners[tied], weights=behind, minlength=len(block)) / counts.clip(min=1)  # of AP
    last = nth == counts[owners] - 1
    doubt[owners[last]] += counts[owners[last]] * (1.0 / best[last] - 1.0 / worst[last])  # of INP
    doubt[owners[tied & (nth == 0)]] = np.inf
    return owners, best, np.flatnonzero(doubt > _TOLERANCE)


def _nearer_by_threads(
    block: np.ndarray, rows: np.ndarray, columns: np.ndarray, wanted: np.ndarray, pool: ThreadPoolExecutor
) -> tuple[np.ndarray, np.ndarray]:
    """Number of images of other identities with distance < and ≤ each of `wanted` (n×K, ascending).

    numpy's sort of values is vectorised, many times faster than torch's on a CPU, and releases the GIL.
    """
    nearer, or_as_far = np.empty(wanted.shape, np.int64), np.empty(wanted.shape, np.int64)

    def some(start: int) -> None:
        part = slice(start, start + step)
        others = block[part].copy()
        first, last = np.searchsorted(rows, (start, start + step))
        others[rows[first:last] - start, columns[first:last]] = np.inf
        others.sort(axis=1)
        for row, others_of_row in enumerate(others, start):
            nearer[row] = others_of_row.searchsorted(wanted[row])
            or_as_far[row] = others_of_row.searchsorted(wanted[row], side="right")

    step = max(1, _SORTED // block.shape[1])
    list(pool.map(some, range(0, len(block), step)))
    return nearer, or_as_far


def _nearer_on_device(
    block: Tensor, rows: np.ndarray, columns: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`_nearer_by_threads` in torch, for all rows at once."""
    others, sought = block.clone(), torch.from_numpy(wanted).to(block.device)
    others[rows, columns] = torch.inf
    others = others.sort(dim=1).values
    nearer, or_as_far = (torch.searchsorted(others, sought, right=right) for right in (False, True))
    return nearer.cpu().numpy(), or_as_far.cpu().numpy()


def _positions(correct: np.ndarray, junk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and 1-based position, junk excluded, of the correct entries of n sorted galleries (bool n×G)."""
    rows, columns = np.nonzero(correct)
    return rows, columns - junk.cumsum(axis=1, dtype=np.int32)[rows, columns] + 1


def _scores(rows: np.ndarray, positions: np.ndarray, count: int) -> _Scores:
    """Scores of `count` queries, from the result of `_positions` or `_count`."""
    counts = np.bincount(rows, minlength=count)
    starts = counts.cumsum() - counts
    nth = np.arange(len(rows)) - starts[rows] + 1  # 1-based index among the correct matches of its query
    precision = nth / positions
    # one position before a match: n − 1 correct ones of position − 1; 1 at the start of the curve
    before = np.divide(nth - 1, positions - 1, out=np.ones(len(rows)), where=positions > 1)

    valid = counts > 0
    scores = _Scores.empty(count)
    scores.first[valid] = positions[starts[valid]] - 1
    for into, heights in ((scores.ap, precision), (scores.ap_trapezoid, (before + precision) / 2.0)):
        into[valid] = np.bincount(rows, weights=heights, minlength=count)[valid] / counts[valid]
    scores.inp[valid] = counts[valid] / positions[(starts + counts - 1)[valid]]
    return scores


def _single_shot_hits(
    ranked: np.ndarray, identity: int | np.integer, max_rank: int, rng: np.random.RandomState
) -> np.ndarray:
    """CMC of one query over ten galleries of one random image per identity; `ranked`: identities by distance."""
    _, starts, labels, sizes = np.unique(ranked, return_index=True, return_inverse=True, return_counts=True)
    appearance = np.argsort(starts)  # torchreid draws identities in the order of first appearance
    grouped = np.argsort(labels, kind="stable")  # positions in the ranking, gathered by identity
    offsets = (sizes.cumsum() - sizes)[appearance]
    drawn = rng.randint(0, np.tile(sizes[appearance], _REPEATS)).reshape(_REPEATS, -1)
    places = grouped[offsets + drawn]  # repeats × identities: rank of each drawn image
    wanted = int(np.flatnonzero(ranked[starts[appearance]] == identity)[0])
    first = (places < places[:, wanted, None]).sum(axis=1)
    return (first[:, None] <= np.arange(max_rank)).mean(axis=0)
