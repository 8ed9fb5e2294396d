"""CMC, mAP and mINP of a ranked gallery, per query, by the protocols of Market-1501 and CUHK03.

The numbers are those of torchreid's `evaluate_rank`, which averages over queries in Python. Here they stay
per query, because confidence intervals and comparisons between attacks need them, and they are
computed for many queries at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reid_attack_bench.errors import BenchError

Protocol = Literal["market1501", "cuhk03"]

_CHUNK = 512  # queries sorted at a time: 512 × 16 000 gallery images are 64 MB of indices
_REPEATS = 10  # random single-shot galleries of the CUHK03 protocol


@dataclass(frozen=True)
class Ranking:
    """How each of N queries ranked the gallery, its junk (same identity and camera as the query) removed.

    Attributes:
        valid: bool N; the gallery holds a correct match. The others count nowhere.
        first: int64 N; 0-based position of the first correct match, −1 where not valid.
        ap: float64 N in [0, 1]; average precision, NaN where not valid.
        inp: float64 N in [0, 1]; inverse negative penalty, number of correct matches over the 1-based
            position of the last (Ye et al., TPAMI 2021), NaN where not valid.
        hits: float32 N×R in [0, 1]; a correct match within the first r + 1, NaN where not valid. Of 0 and 1
            for Market-1501, an average over ten random galleries for CUHK03. Where the gallery is shorter
            than R, its last value goes on.
    """

    valid: np.ndarray
    first: np.ndarray
    ap: np.ndarray
    inp: np.ndarray
    hits: np.ndarray


def rank(
    distances: np.ndarray | Iterable[np.ndarray],
    query_identities: np.ndarray,
    gallery_identities: np.ndarray,
    query_cameras: np.ndarray,
    gallery_cameras: np.ndarray,
    *,
    protocol: Protocol = "market1501",
    max_rank: int = 50,
    rng: np.random.RandomState | None = None,
) -> Ranking:
    """Rank the gallery for every query, as torchreid's `evaluate_rank` does, ties included.

    Args:
        distances: float Q×G, smaller is nearer; or consecutive blocks of its rows, so that the
            whole need never be in memory.
        query_identities, query_cameras: int Q.
        gallery_identities, gallery_cameras: int G.
        protocol: "market1501", or "cuhk03" for the single-gallery-shot CMC of the classic CUHK03 splits. (The
            767/700 split of CUHK03 is evaluated as Market-1501.)
        max_rank: R, the number of ranks in `hits`.
        rng: draws the galleries of "cuhk03"; RandomState(s) gives what torchreid gives after np.random.seed(s).

    Raises:
        BenchError: shapes do not agree, a distance is NaN, no query has a correct match in the
            gallery, or "cuhk03" without `rng`.
    """
    if protocol not in ("market1501", "cuhk03"):
        raise BenchError(f"unknown ranking protocol {protocol!r}: use market1501 or cuhk03")
    if protocol == "cuhk03" and rng is None:
        raise BenchError("the cuhk03 protocol draws galleries at random: pass rng=np.random.RandomState(seed)")
    if max_rank < 1:
        raise BenchError(f"max_rank must be at least 1, not {max_rank}")
    query_identities, query_cameras = _labels(query_identities, query_cameras, "query")
    gallery_identities, gallery_cameras = _labels(gallery_identities, gallery_cameras, "gallery")

    count = len(query_identities)
    first = np.full(count, -1, np.int64)
    ap, inp = np.full(count, np.nan), np.full(count, np.nan)
    hits = np.full((count, max_rank), np.nan, np.float32)
    for start, block in _blocks(distances, count, len(gallery_identities)):
        part = slice(start, start + len(block))
        order = np.argsort(block, axis=1)  # torchreid's call, so that ties fall the same way
        same = np.take_along_axis(query_identities[part, None] == gallery_identities, order, axis=1)
        junk = same & (query_cameras[part, None] == gallery_cameras[order])
        first[part], ap[part], inp[part] = _positions(same & ~junk, junk)
        if protocol == "market1501":
            hits[part] = first[part, None] <= np.arange(max_rank)
        else:
            assert rng is not None
            for row in np.flatnonzero(first[part] >= 0):
                kept = gallery_identities[order[row][~junk[row]]]
                hits[start + row] = _single_shot_hits(kept, query_identities[start + row], max_rank, rng)

    valid = first >= 0
    if not valid.any():
        raise BenchError(
            f"none of the {count} queries has a correct match in the gallery: their identities must occur there "
            "too, seen by another camera"
        )
    hits[~valid] = np.nan
    return Ranking(valid=valid, first=first, ap=ap, inp=inp, hits=hits)


def with_misses(ranking: Ranking, missed: np.ndarray, gallery: int) -> Ranking:
    """The ranking where the queries `missed` (bool N) found nobody.

    Their hits, AP and INP are 0, and their first match lies behind the `gallery` images that there are.
    """
    missed = missed & ranking.valid
    return Ranking(
        valid=ranking.valid,
        first=np.where(missed, gallery, ranking.first),
        ap=np.where(missed, 0.0, ranking.ap),
        inp=np.where(missed, 0.0, ranking.inp),
        hits=np.where(missed[:, None], np.float32(0.0), ranking.hits),
    )


def summary(ranking: Ranking) -> dict[str, float]:
    """rank1, rank5, rank10, rank20, mAP and mINP over the valid queries, in percent (0 … 100)."""
    valid = ranking.valid
    if not valid.any():
        raise BenchError("no query has a correct match in the gallery, so there is nothing to average")
    cmc = ranking.hits[valid].mean(axis=0, dtype=np.float64)
    scores = {f"rank{k}": 100.0 * float(cmc[k - 1]) for k in (1, 5, 10, 20) if k <= len(cmc)}
    return scores | {"mAP": 100.0 * float(ranking.ap[valid].mean()), "mINP": 100.0 * float(ranking.inp[valid].mean())}


def top_matches(
    distances: np.ndarray,
    query_identities: np.ndarray,
    gallery_identities: np.ndarray,
    query_cameras: np.ndarray,
    gallery_cameras: np.ndarray,
    k: int = 10,
) -> np.ndarray:
    """int64 Q×k: the gallery indices of the k nearest images per query, junk removed, −1 where there are fewer.

    Arguments as for `rank`.
    """
    query_identities, query_cameras = _labels(query_identities, query_cameras, "query")
    gallery_identities, gallery_cameras = _labels(gallery_identities, gallery_cameras, "gallery")
    nearest = np.full((len(query_identities), k), -1, np.int64)
    for start, block in _blocks(distances, len(query_identities), len(gallery_identities)):
        for row, order in enumerate(np.argsort(block, axis=1), start):
            junk = (gallery_identities[order] == query_identities[row]) & (gallery_cameras[order] == query_cameras[row])
            kept = order[~junk][:k]
            nearest[row, : len(kept)] = kept
    return nearest


def _labels(identities: np.ndarray, cameras: np.ndarray, side: str) -> tuple[np.ndarray, np.ndarray]:
    identities, cameras = np.asarray(identities), np.asarray(cameras)
    if identities.ndim != 1 or identities.shape != cameras.shape or len(identities) == 0:
        raise BenchError(
            f"the {side} needs one identity and one camera per image, at least one, not arrays of shape "
            f"{identities.shape} and {cameras.shape}"
        )
    return identities, cameras


def _blocks(
    distances: np.ndarray | Iterable[np.ndarray], queries: int, gallery: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Consecutive rows, at most _CHUNK at a time, each block with the number of its first query."""
    start = 0
    for given in [distances] if isinstance(distances, np.ndarray) else distances:
        if given.ndim != 2 or given.shape[1] != gallery or start + len(given) > queries:
            raise BenchError(
                f"distances of {queries} queries to {gallery} gallery images must be {queries}×{gallery}, but a block "
                f"of shape {given.shape} starts at row {start}"
            )
        for offset in range(0, len(given), _CHUNK):
            block = given[offset : offset + _CHUNK]
            if np.isnan(block).any():
                row = start + int(np.isnan(block).any(axis=1).argmax())
                raise BenchError(f"the distances of query {row} contain NaN: look at the embeddings of the victim")
            yield start, block
            start += len(block)
    if start != queries:
        raise BenchError(f"there are distances for {start} queries, but {queries} query identities")


def _positions(correct: np.ndarray, junk: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First position, AP and INP per row, from the correct and the junk entries of n sorted galleries (bool n×G)."""
    rows, columns = np.nonzero(correct)  # row by row, and few: everything after is per correct match
    counts = np.bincount(rows, minlength=len(correct))
    junk_before = junk.cumsum(axis=1, dtype=np.int32)[rows, columns]
    position = columns - junk_before + 1  # 1-based, in the gallery without junk
    starts = counts.cumsum() - counts
    nth = np.arange(len(rows)) - starts[rows] + 1  # this is the nth correct match of its query

    valid = counts > 0
    first = np.full(len(correct), -1, np.int64)
    ap, inp = np.full(len(correct), np.nan), np.full(len(correct), np.nan)
    first[valid] = position[starts[valid]] - 1
    ap[valid] = np.bincount(rows, weights=nth / position, minlength=len(correct))[valid] / counts[valid]
    inp[valid] = counts[valid] / position[(starts + counts - 1)[valid]]
    return first, ap, inp


def _single_shot_hits(
    ranked: np.ndarray, identity: int | np.integer, max_rank: int, rng: np.random.RandomState
) -> np.ndarray:
    """CMC of one query over ten galleries of one random image per identity, `ranked` being identities by distance."""
    _, starts, labels, sizes = np.unique(ranked, return_index=True, return_inverse=True, return_counts=True)
    appearance = np.argsort(starts)  # torchreid draws for identities in the order in which they first appear
    grouped = np.argsort(labels, kind="stable")  # positions in the ranking, gathered by identity
    offsets = (sizes.cumsum() - sizes)[appearance]
    drawn = rng.randint(0, np.tile(sizes[appearance], _REPEATS)).reshape(_REPEATS, -1)
    places = grouped[offsets + drawn]  # repeats × identities: where each drawn image ranks
    wanted = int(np.flatnonzero(ranked[starts[appearance]] == identity)[0])
    first = (places < places[:, wanted, None]).sum(axis=1)
    return (first[:, None] <= np.arange(max_rank)).mean(axis=0)


__all__ = ["Protocol", "Ranking", "rank", "summary", "top_matches", "with_misses"]
