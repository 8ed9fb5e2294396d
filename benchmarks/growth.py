"""Scaling with the number of queries, gallery images, sources and targets, and estimated costs of whole matrices.

Cost model: the time of ranking is proportional to queries × gallery; its memory is that of blocks of fixed size and,
for cosine distance, a normalised copy of the gallery. A matrix has one craft per attack and source, and one embedding
and one ranking per attack, source and target.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from benchmarks import small_matrix
from benchmarks.ranking import MARKET, MSMT, Size, alone_elsewhere, draw
from benchmarks.side_by_side import RUNS, Line, in_turn, line, not_measured, seconds
from benchmarks.untrained import Untrained
from reid_attack_bench.execute.device import keep_freed_memory
from reid_attack_bench.metrics.ranking import distance_rows, rank

TOPIC = "growth"
DIMENSIONS = 512
LINEAR, CONSTANT = 2.3, 1.15  # largest cost ratio of a doubling, with room for sorting and noise


@dataclass(frozen=True)
class Matrix:
    """A matrix whose cost is estimated. Every attack perturbs the queries in `steps` steps at one budget.

    Sources and targets are the same victims, as many as the larger of the two. The training of victims and attacks
    is not counted.
    """

    split: Size
    attacks: int = 10
    sources: int = 10
    targets: int = 8
    steps: int = 20

    @property
    def backward(self) -> int:
        """Number of forward and backward image passes: attacks × sources × queries × steps."""
        return self.attacks * self.sources * self.split.queries * self.steps

    @property
    def forward(self) -> int:
        """Number of forward image passes: adversarial queries on all targets, clean images on all victims."""
        clean = max(self.sources, self.targets) * (self.split.queries + self.split.gallery)
        return self.attacks * self.sources * self.targets * self.split.queries + clean

    @property
    def rankings(self) -> int:
        return self.attacks * self.sources * self.targets + max(self.sources, self.targets)

    def hours(self, forward_rate: float, backward_rate: float, ranking_seconds: float) -> float:
        """Estimated hours, from images/s forward, images/s forward and backward, and seconds per ranking."""
        passes = self.backward / backward_rate + self.forward / forward_rate
        return (passes + self.rankings * ranking_seconds) / 3600.0


def measure() -> Iterator[Line]:
    keep_freed_memory()  # as a run does
    yield from _of_ranking()
    yield from _of_matrix()
    yield from _hours()


def _of_ranking() -> Iterator[Line]:
    base = Size("", 1000, 16000, 750, 0, 6)  # several blocks of rows even before doubling
    for side, fixed in (("queries", f"{base.gallery:,} gallery images"), ("gallery", f"{base.queries:,} queries")):
        sizes = [replace(base, **{side: getattr(base, side) * 2**n}) for n in range(3)]
        what = f"{side} doubled, " + " → ".join(f"{getattr(size, side):,}" for size in sizes)
        ratios = [ratio for one, two in itertools.pairwise(sizes) for ratio in _ratios(one, two)]
        more = "; the matches of a query double too" if side == "gallery" else ""
        yield line(
            TOPIC, f"ranking time, {what}", "half as many", ratios, "× the time", f"≤ {LINEAR} (linear)",
            lambda x: x <= LINEAR, f"{fixed}, {DIMENSIONS} dimensions, with distances{more}; {RUNS} runs of each",
        )  # fmt: skip
    few, many = (alone_elsewhere(replace(base, queries=n), DIMENSIONS)["gib"] for n in (1000, 16000))
    yield line(
        TOPIC, "ranking memory, queries 1,000 → 16,000", "a sixteenth as many", [many / few], "× the memory",
        "≤ 4 (blocks)", lambda x: x <= 4,
        f"{few:.2f} → {many:.2f} GiB: from 4 to 10 blocks of 16 MiB, as the allocator releases them; a matrix would "
        "take 16 times as much",
    )  # fmt: skip
    few, many = (alone_elsewhere(replace(base, gallery=n), DIMENSIONS)["gib"] for n in (16000, 64000))
    yield line(
        TOPIC, "ranking memory, gallery 16,000 → 64,000", "a quarter as many", [many / few], "× the memory",
        "≤ 4 (linear)", lambda x: x <= 4, f"{few:.2f} → {many:.2f} GiB: blocks, and the normalised gallery",
    )  # fmt: skip


def _ratios(one: Size, two: Size) -> list[float]:
    small, large = draw(one, DIMENSIONS), draw(two, DIMENSIONS)
    return in_turn(
        lambda: rank(distance_rows(large.query, large.gallery, "cosine"), *large.labels),
        lambda: rank(distance_rows(small.query, small.gallery, "cosine"), *small.labels),
    )


def _of_matrix() -> Iterator[Line]:
    points = [(1, 1), (2, 1), (4, 1), (1, 2), (1, 4)]
    found = dict(zip(points, small_matrix.times(points, RUNS), strict=True))
    memory = {point: small_matrix.counts(*point)["gib"] for point in ((1, 1), (4, 1), (1, 4))}
    kinds = {"crafting": ("craft",), "embedding and ranking": ("features", "rank")}
    for side, chain in (("sources", points[:3]), ("targets", [points[0], *points[3:]])):
        for name, steps in kinds.items():
            constant = side == "targets" and name == "crafting"
            most, word = (CONSTANT, "constant") if constant else (LINEAR, "linear")
            ratios = [ratio for one, two in itertools.pairwise(chain) for ratio in _quotients(found, one, two, steps)]
            yield line(
                TOPIC, f"time of {name}, {side} doubled, 1 → 2 → 4", "half as many", ratios, "× the time",
                f"≤ {most} ({word})", lambda x, most=most: x <= most,  # type: ignore[misc]
                f"whole runs on a small data set, {RUNS} of each",
            )  # fmt: skip
        factor = (memory[chain[-1]] / memory[chain[0]]) ** 0.5
        yield line(
            TOPIC, f"memory of a run, {side} doubled, 1 → 2 → 4", "half as many", [factor], "× the memory",
            f"≤ {CONSTANT} (constant)", lambda x: x <= CONSTANT,
            f"{memory[chain[0]]:.3f} → {memory[chain[-1]]:.3f} GiB; at most 24 victims stay loaded",
        )  # fmt: skip


def _quotients(
    found: dict[tuple[int, int], list[Counter[str]]], one: tuple[int, int], two: tuple[int, int], steps: Sequence[str]
) -> list[float]:
    return [
        sum(above[kind] for kind in steps) / sum(below[kind] for kind in steps)
        for above, below in zip(found[two], found[one], strict=True)
    ]


def _hours() -> Iterator[Line]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where, unit = ("a GPU", "GPU hours") if device.type == "cuda" else ("this CPU", "hours of this CPU")
    forward, backward = throughput(device)
    for split in (MARKET, MSMT):
        matrix = Matrix(split)
        ranking = _ranking_seconds(split, device)
        what = (
            f"{split.name}, {matrix.attacks} attacks × {matrix.sources} sources × {matrix.targets} targets, "
            f"{matrix.steps} steps, ResNet-50 at 256×128, calculated"
        )
        passes = f"{matrix.backward:,} forward and backward, {matrix.forward:,} forward, {matrix.rankings:,} rankings"
        rates = f"at {backward:,.1f} and {forward:,.1f} images/s and {ranking:.2f} s, measured on {where}"
        yield line(
            TOPIC, what, "nothing: a price", [matrix.hours(forward, backward, ranking)], unit, note=f"{passes}; {rates}"
        )  # fmt: skip
        if device.type == "cpu":
            formula = f"no GPU available; divide by its rates: {passes}"
            yield not_measured(TOPIC, what, "nothing: a price", "GPU hours", "", formula)


def throughput(device: torch.device, images: int = 8) -> tuple[float, float]:
    """Images/s of an untrained ResNet-50 at 256×128, forward and forward with backward to the image."""
    images = 128 if device.type == "cuda" else images
    victim = Untrained("resnet50", (256, 128)).to(device).eval().requires_grad_(False)
    batch = torch.rand(images, 3, 256, 128, device=device)

    def forward() -> Any:
        with torch.no_grad():
            return victim.embed(batch)

    def both() -> Any:
        leaf = batch.clone().requires_grad_(True)
        return torch.autograd.grad(victim.embed(leaf).sum(), leaf)

    forward(), both()
    found: dict[str, list[float]] = {"forward": [], "both": []}
    for _ in range(RUNS):
        found["forward"].append(seconds(forward))
        found["both"].append(seconds(both))
    return images / median(found["forward"]), images / median(found["both"])


def _ranking_seconds(split: Size, device: torch.device) -> float:
    """Seconds of one ranking from 2,048 dimensions, measured on a tenth of the queries."""
    drawn = draw(replace(split, queries=split.queries // 10), 2048)
    query, gallery = drawn.query.to(device), drawn.gallery.to(device)
    rank(distance_rows(query, gallery, "cosine"), *drawn.labels)
    return 10 * median(seconds(lambda: rank(distance_rows(query, gallery, "cosine"), *drawn.labels)) for _ in range(3))
