"""Ranking compared with torchreid's Python and Cython versions; its memory at the size of MSMT17; intervals.

The wheel of torchreid lacks the source of its Cython evaluation. The wheel of FastReID on PyPI contains that file, with
mINP added; it is fetched and built in a temporary folder. If the variable RANK_CY names that of torchreid
(torchreid/metrics/rank_cylib/rank_cy.pyx of its repository, or the module built from it), it is used instead.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from benchmarks.memory import in_new_process, peak, resident
from benchmarks.side_by_side import Line, in_turn, line, not_measured, seconds
from reid_attack_bench.contracts import Distance
from reid_attack_bench.execute.device import keep_freed_memory
from reid_attack_bench.metrics.bootstrap import intervals
from reid_attack_bench.metrics.ranking import distance_rows, rank, summary
from reid_attack_bench.torchreid_import import torchreid_module

TOPIC = "ranking"
RANK_CY = "RANK_CY"
SHIPS_IT = "fastreid==1.4.0"
SUBSET = 400  # queries for comparisons with torchreid's Python version, which takes 4 to 20 ms per query


@dataclass(frozen=True)
class Size:
    """Size of a test split; `gallery` includes the distractors, images without a matching query."""

    name: str
    queries: int
    gallery: int
    identities: int
    distractors: int
    cameras: int


MARKET = Size("Market-1501", 3368, 15913, 750, 2798, 6)
MSMT = Size("MSMT17", 11659, 82161, 3060, 0, 15)


@dataclass(frozen=True)
class Drawn:
    """Random embeddings of a split: identity centres plus noise, so that the mAP is about 0.5."""

    query: torch.Tensor
    gallery: torch.Tensor
    labels: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # identities and cameras, as `rank` takes them

    def some(self, queries: int) -> Drawn:
        q_ids, g_ids, q_cams, g_cams = self.labels
        return Drawn(self.query[:queries], self.gallery, (q_ids[:queries], g_ids, q_cams[:queries], g_cams))

    def matrix(self, distance: Distance = "cosine") -> np.ndarray:
        return torch.cat(list(distance_rows(self.query, self.gallery, distance))).numpy()


def draw(size: Size, dimensions: int) -> Drawn:
    generator = torch.Generator().manual_seed(0)
    noise = 0.5 * dimensions**0.25  # separates matches from other identities equally at all dimensions
    centres = torch.randn(size.identities + 1, dimensions, generator=generator)

    def side(count: int, distractors: int) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
        identities = torch.randint(1, size.identities + 1, (count,), generator=generator)
        identities[:distractors] = 0
        features = torch.randn(count, dimensions, generator=generator).mul_(noise).add_(centres[identities])
        features[:distractors] -= centres[0]
        return features, identities.numpy(), torch.randint(0, size.cameras, (count,), generator=generator).numpy()

    query, q_ids, q_cams = side(size.queries, 0)
    gallery, g_ids, g_cams = side(size.gallery, size.distractors)
    return Drawn(query, gallery, (q_ids, g_ids, q_cams, g_cams))


def measure() -> Iterator[Line]:
    keep_freed_memory()  # as a run does
    python = functools.partial(torchreid_module("metrics.rank").evaluate_rank, use_cython=False)
    with tempfile.TemporaryDirectory() as folder:
        cython, origin = _cython(Path(folder))
        for dimensions in (512, 2048):
            yield from _against(draw(MARKET, dimensions), dimensions, python, cython, origin)
    yield from _intervals()
    yield _memory()
    yield from _on_gpu()


def _against(
    drawn: Drawn, dimensions: int, python: Callable[..., Any], cython: Callable[..., Any] | None, origin: str
) -> Iterator[Line]:
    size = f"{MARKET.name}, {MARKET.queries:,} × {MARKET.gallery:,}, {dimensions} dimensions"
    whole, few = drawn.matrix(), drawn.some(SUBSET)
    part = whole[:SUBSET].copy()
    threads = f"threads: ours {torch.get_num_threads()}, torchreid's 1"

    ours, theirs = rank(part, *few.labels), quietly(python, part, *few.labels)
    gap = disagreement(ours, theirs)
    yield line(
        TOPIC, f"CMC and mAP, {size}", "torchreid's Python", [gap], "largest difference", "≤ 1e-6", lambda x: x <= 1e-6,
        f"the first {SUBSET} queries",
    )  # fmt: skip
    ratios = in_turn(lambda: quietly(python, part, *few.labels), lambda: rank(part, *few.labels))
    yield line(
        TOPIC, f"distances to metrics, {size}", "torchreid's Python evaluate_rank", ratios, "× faster", "≥ 20",
        lambda x: x >= 20, f"the first {SUBSET} queries; {threads}",
    )  # fmt: skip
    ratios = in_turn(
        lambda: quietly(python, part, *few.labels),
        lambda: rank(distance_rows(few.query, few.gallery, "cosine"), *few.labels),
    )
    share = in_turn(
        lambda: list(map(len, distance_rows(few.query, few.gallery, "cosine"))),
        lambda: rank(distance_rows(few.query, few.gallery, "cosine"), *few.labels),
    )
    yield line(
        TOPIC, f"embeddings to metrics, {size}", "torchreid's Python evaluate_rank without its distances", ratios,
        "× faster", note=f"the product of the embeddings is {np.median(share):.0%} of ours; {threads}",
    )  # fmt: skip

    what, against = f"distances to metrics, {size}", "torchreid's Cython evaluate_rank"
    if cython is None:
        yield not_measured(TOPIC, what, against, "× faster", "≥ 1", origin)
        return
    found = quietly(cython, whole, *drawn.labels)
    gap = disagreement(rank(whole, *drawn.labels), found)
    if gap > 1e-5:  # it sums in 32 bits
        raise AssertionError(f"torchreid's Cython version gives other values than ours: {gap}")
    ratios = in_turn(lambda: quietly(cython, whole, *drawn.labels), lambda: rank(whole, *drawn.labels))
    note = f"all queries; values differ by {gap:.0e}; {threads}; {origin}"
    yield line(TOPIC, what, against, ratios, "× faster", "≥ 1", lambda x: x >= 1, note)


def quietly(
    evaluate: Callable[..., Any],
    distances: np.ndarray,
    query_identities: np.ndarray,
    gallery_identities: np.ndarray,
    query_cameras: np.ndarray,
    gallery_cameras: np.ndarray,
) -> tuple[np.ndarray, float]:
    """CMC of 50 ranks and mAP, as fractions, from `evaluate` of torchreid or FastReID."""
    labels = query_identities, gallery_identities, query_cameras, gallery_cameras
    with contextlib.redirect_stdout(io.StringIO()):
        cmc, ap, *_ = evaluate(distances, *labels, 50, False)
    return cmc, float(np.mean(ap, dtype=np.float64))


def disagreement(ours: Any, theirs: tuple[np.ndarray, float]) -> float:
    """Largest difference of any CMC value or mAP, as a fraction."""
    cmc, mean_ap = theirs
    own = ours.hits[ours.valid].mean(axis=0, dtype=np.float64)
    return max(float(np.abs(own - cmc).max()), abs(summary(ours)["mAP"] / 100.0 - mean_ap))


def _intervals() -> Iterator[Line]:
    for size in (MARKET, MSMT):
        # the full gallery; a fifth of the queries of MSMT17, so that it takes seconds
        drawn = draw(size, 64)
        if size is MSMT:
            drawn = drawn.some(size.queries // 5)
        ranking = rank(drawn.matrix(), *drawn.labels)
        columns = np.stack([ranking.hits[:, 0], ranking.ap], axis=1)[ranking.valid]
        identities, matrix = drawn.labels[0][ranking.valid], drawn.matrix()

        def bounds(columns: np.ndarray = columns, identities: np.ndarray = identities) -> np.ndarray:
            return intervals(columns, identities, seed=0)

        def ranked(matrix: np.ndarray = matrix, drawn: Drawn = drawn) -> Any:
            return rank(matrix, *drawn.labels)

        ratios = in_turn(bounds, ranked)
        yield line(
            TOPIC, f"bootstrap intervals of Rank-1 and mAP, {size.name}", "the ranking, distances given", ratios,
            "× the time", "≤ 1", lambda x: x <= 1, f"{len(columns):,} queries × 2,000 resamples, no ranking",
        )  # fmt: skip


def _memory() -> Line:
    found = alone_elsewhere(MSMT, 2048)
    matrix = MSMT.queries * MSMT.gallery * 4 / 2**30
    return line(
        TOPIC, f"extra memory, {MSMT.name}, {MSMT.queries:,} × {MSMT.gallery:,}, 2048 dimensions",
        f"the whole matrix, {matrix:.1f} GiB", [found["gib"]], "GiB", "< 2", lambda x: x < 2,
        f"beyond the embeddings, in a new process; {MSMT.gallery * 2048 * 4 / 2**30:.2f} GiB of it are the "
        f"normalised gallery; it took {found['seconds']:.0f} s",
    )  # fmt: skip


def alone_elsewhere(size: Size, dimensions: int) -> dict[str, float]:
    """`alone` in a new process with the same number of threads."""
    call = f"ranking.alone(ranking.{size}, {dimensions}, {torch.get_num_threads()})"
    found: dict[str, float] = in_new_process(call)
    return found


def alone(size: Size, dimensions: int, threads: int) -> dict[str, float]:
    """Seconds of one ranking from embeddings, and its peak memory in GiB beyond them."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    drawn = draw(size, dimensions)
    first = drawn.some(8)
    rank(distance_rows(first.query[:, :8], first.gallery[:, :8], "cosine"), *first.labels)  # load lazy imports
    before = resident()
    spent = seconds(lambda: rank(distance_rows(drawn.query, drawn.gallery, "cosine"), *drawn.labels))
    return {"seconds": spent, "gib": peak() - before}


def _on_gpu() -> Iterator[Line]:
    what, against = f"embeddings to metrics on a GPU, {MARKET.name}, 2048 dimensions", "the CPU of this machine"
    bounds, ranking = f"bootstrap intervals of Rank-1 and mAP, {MARKET.name}", "the ranking on a GPU, with distances"
    if not torch.cuda.is_available():
        yield not_measured(TOPIC, what, against, "× faster", "", "no GPU at hand")
        yield not_measured(TOPIC, bounds, ranking, "× the time", "≤ 1", "no GPU at hand")
        return
    drawn = draw(MARKET, 2048)
    query, gallery = drawn.query.cuda(), drawn.gallery.cuda()

    def on_gpu() -> Any:
        return rank(distance_rows(query, gallery, "cosine"), *drawn.labels)

    def on_cpu() -> Any:
        return rank(distance_rows(drawn.query, drawn.gallery, "cosine"), *drawn.labels)

    gap = abs(summary(on_gpu())["mAP"] - summary(on_cpu())["mAP"])
    yield line(TOPIC, what, against, in_turn(on_cpu, on_gpu), "× faster", note=f"mAP differs by {gap:.0e} points")
    columns = np.random.default_rng(0).random((MARKET.queries, 2))
    ratios = in_turn(lambda: intervals(columns, seed=0), on_gpu)
    yield line(TOPIC, bounds, ranking, ratios, "× the time", "≤ 1", lambda x: x <= 1, "drawn on the CPU")


def _cython(folder: Path) -> tuple[Callable[..., Any] | None, str]:
    """(evaluate_cy, its origin), or (None, reason)."""
    named = os.environ.get(RANK_CY)
    try:
        if not named:
            return _loaded(_built(folder, _shipped(folder))).evaluate_cy, f"the file as {SHIPS_IT} ships it"
        own = _built(folder, Path(named).read_text(encoding="utf-8")) if named.endswith(".pyx") else Path(named)
        return _loaded(own).evaluate_cy, "torchreid's own file"
    except (OSError, subprocess.CalledProcessError, ImportError, StopIteration) as error:
        return None, f"could not be fetched or built: {' '.join(str(error).split())}"


def _shipped(folder: Path) -> str:
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), SHIPS_IT]
    subprocess.run(fetch, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("fastreid*.whl"))) as wheel:
        return wheel.read("fastreid/evaluation/rank_cylib/rank_cy.pyx").decode()


def _built(folder: Path, source: str) -> Path:
    """The extension, compiled in `folder` by a setup.py."""
    (folder / "rank_cy.pyx").write_text(source, encoding="utf-8")
    (folder / "setup.py").write_text(
        "import numpy\nfrom Cython.Build import cythonize\nfrom setuptools import Extension, setup\n"
        "setup(name='rank_cy', ext_modules=cythonize("
        "[Extension('rank_cy', ['rank_cy.pyx'], include_dirs=[numpy.get_include()])], language_level=3))\n",
        encoding="utf-8",
    )
    build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(build, cwd=folder, check=True, capture_output=True)
    return next(folder.glob("rank_cy*.so"))


def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("rank_cy", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module
