"""The victim under test, its images, and results of checks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from reid_attack_bench.checks.embed import embed
from reid_attack_bench.checks.other_inputs import INPUTS
from reid_attack_bench.checks.result import Level
from reid_attack_bench.contracts import Distance, Victim, distances, unbound
from reid_attack_bench.data.split import Split
from reid_attack_bench.metrics.bootstrap import interval
from reid_attack_bench.metrics.ranking import compared_rows, rank

MOVED = 0.01
"""Largest change of an embedding attributed to rounding, relative to the distance between different images."""

BATCH = 32

FEW = 8  # images used by most checks

Observation = tuple[Level, str, str]
"""Level, evidence and advice of a check."""


@dataclass(frozen=True)
class Score:
    """Ranking quality of embeddings: AP per query in % (NaN without a match) and Rank-1 in %."""

    ap: np.ndarray
    rank1: float

    @property
    def mean(self) -> float:
        return float(np.nanmean(self.ap))

    def better_than(self, other: Score, margin: float) -> bool:
        difference = self.ap - other.ap
        return float(np.nanmean(difference)) >= margin and interval(difference, seed=0, exact=False)[0] > 0.0


@dataclass(frozen=True)
class Subject:
    """The victim under test, with images N×3×H×W in [0, 1] on its device and int64 N labels.

    The images know their cameras if it uses cameras.
    batch_size: images per batch when attacks are crafted; called: position of an image → its name, for errors;
    first_gradient: of one batch, for a comparison at the end.
    """

    victim: Victim
    images: Tensor
    identities: np.ndarray
    cameras: np.ndarray
    batch_size: int = BATCH
    called: Callable[[int], str] = "image {}".format
    first_gradient: list[Tensor] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.victim.name or type(self.victim).__name__

    @functools.cached_property
    def randomised(self) -> bool:
        """Whether two passes over one image may differ, as declared or as seen."""
        return self.victim.randomised or self.varies > MOVED

    @property
    def purifies(self) -> bool:
        """Whether the victim overrides the input transformation."""
        return type(self.model).purify is not Victim.purify

    @property
    def model(self) -> Victim:
        """The victim as its author wrote it; only its own code may give it images."""
        return unbound(self.victim)

    def embed(self, images: Tensor) -> Tensor:
        """Validated embeddings of copies of the images, without gradients, in batches."""
        size, parts = min(BATCH, self.batch_size), []
        with torch.no_grad():
            for first in range(0, len(images), size):
                part = images[first : first + size].clone()
                called = functools.partial(self._called, images, first)
                parts.append(embed(self.victim, part, self.name, called).float())
        return torch.cat(parts)

    def _called(self, images: Tensor, first: int, row: int) -> str:
        """Name of an image at `first + row`; of images other than those under test, its position."""
        return self.called(first + row) if images is self.images else f"image {first + row}"

    @functools.cached_property
    def few(self) -> Tensor:
        return self.images[:FEW]

    @property
    def crafting(self) -> Tensor:
        """A batch as attacks are crafted on."""
        return self.images[: self.batch_size]

    @functools.cached_property
    def spread(self) -> float:
        """Median distance between embeddings of a few different images; clamped to be positive, for division."""
        embeddings = self.embed(self.few)
        pairs = torch.cdist(embeddings, embeddings).flatten()
        median = float(pairs[pairs > 0].median()) if (pairs > 0).any() else 0.0
        return max(median, 1e-3 * float(embeddings.norm(dim=1).mean()), 1e-12)

    def moved(self, one: Tensor, other: Tensor) -> float:
        """Largest distance between two embeddings of one image, relative to `spread`."""
        return float((one.float() - other.float()).norm(dim=1).max()) / self.spread

    @functools.cached_property
    def varies(self) -> float:
        """Difference between two passes over the same images, as `moved`."""
        return self.moved(self.embed(self.few), self.embed(self.few))

    @functools.cached_property
    def declared(self) -> Distance:
        return self.victim.distance if self.victim.distance in get_args(Distance) else "euclidean"

    @functools.cached_property
    def embeddings(self) -> Tensor:
        return self.embed(self.images)

    @functools.cached_property
    def collapsed(self) -> bool:
        """Whether all images have the same embedding and cannot be ranked."""
        mean = self.embeddings.mean(dim=0)
        return float((self.embeddings - mean).norm(dim=1).max()) <= 1e-5 * float(mean.norm())

    def scored(self, embeddings: Tensor) -> Score:
        """Score by what ranks: the declared distance, or the comparison of the victim's own."""
        if not self.victim.own_comparison:
            return self.score(embeddings, self.declared)
        with torch.no_grad():
            return self.score_of(torch.cat(list(compared_rows(self.victim.compare, embeddings, embeddings))))

    def score(self, embeddings: Tensor, distance: Distance) -> Score:
        return self.score_of(distances(embeddings, embeddings, distance))

    def score_of(self, matrix: Tensor) -> Score:
        """Score of distances of all images to all."""
        ranking = rank(matrix.cpu().numpy(), self.identities, self.identities, self.cameras, self.cameras)
        return Score(100.0 * ranking.ap, 100.0 * float(ranking.hits[ranking.valid, 0].mean()))

    @functools.cached_property
    def base(self) -> Score:
        return self.scored(self.embeddings)

    @functools.cached_property
    def other_inputs(self) -> dict[str, Score]:
        """Scores for each form of input in INPUTS that the victim accepts."""
        scores = {}
        for what, (_, change, _) in INPUTS.items():
            try:
                scores[what] = self.scored(self.embed(change(self.images)))
            except Exception:  # other inputs need not be accepted
                continue
        return scores


def images_at(images: Split, victim: Victim, name: str) -> np.ndarray:
    """Images of the data set `name` for `check`; for a victim that uses cameras they know theirs, −1 where it does not
    know them: the data set has none, or is not its own."""
    at_home = victim.trained_on in ("", name)
    return replace(images, cameras_known=images.cameras_known and at_home).images_for(victim)


def sample(query: Split, gallery: Split, queries: int = 64, matches: int = 2) -> Split:
    """Select images of a data set for `check`: queries of different identities and gallery images of the same ones.

    Args:
        queries: largest number of query images.
        matches: largest number of gallery images per identity, from other cameras than its query.
    """
    spread, chosen = sampled(query, gallery, queries, matches)
    return Split(
        np.concatenate((np.array(query.images[spread]), np.array(gallery.images[chosen]))),
        np.concatenate((query.identities[spread], gallery.identities[chosen])),
        np.concatenate((query.cameras[spread], gallery.cameras[chosen])),
        cameras_known=query.cameras_known,
    )


def sampled(query: Split, gallery: Split, queries: int = 64, matches: int = 2) -> tuple[list[int], list[int]]:
    """Positions in the query and in the gallery of the images of `sample`."""
    _, firsts = np.unique(query.identities, return_index=True)
    spread = firsts[np.unique(np.linspace(0, len(firsts) - 1, min(queries, len(firsts))).round().astype(int))]
    chosen: list[int] = []
    for row in spread:
        other = (gallery.identities == query.identities[row]) & (gallery.cameras != query.cameras[row])
        places = np.flatnonzero(other)
        _, one_each = np.unique(gallery.cameras[places], return_index=True)
        chosen += list(places[one_each][:matches])
    return spread.tolist(), chosen


def ok(evidence: str) -> Observation:
    return "ok", evidence, ""


def note(evidence: str, advice: str = "") -> Observation:
    return "note", evidence, advice


def fault(evidence: str, advice: str) -> Observation:
    return "fault", evidence, advice


def kind_of(result: Any) -> str:
    if isinstance(result, Tensor):
        return f"{type_of(result)} of shape {tuple(result.shape)}"
    return f"a NumPy array of shape {result.shape}" if isinstance(result, np.ndarray) else f"a {type(result).__name__}"


def type_of(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


@contextmanager
def same_draw(device: torch.device, seed: int = 0) -> Iterator[None]:
    """Seed torch's global generators, so that a randomised victim draws the same numbers each time."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
