"""The victim under check, the images it is checked on, and results of checks."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from reid_attack_bench.contracts import Defence, Distance, Recipe, Victim, distances
from reid_attack_bench.data.split import Split
from reid_attack_bench.errors import BenchError
from reid_attack_bench.jobs.check_victim.other_inputs import INPUTS
from reid_attack_bench.metrics.bootstrap import interval
from reid_attack_bench.metrics.ranking import rank
from reid_attack_bench.steps.examine import embed

Level = Literal["ok", "note", "fault"]

MOVED = 0.01
"""How far an embedding may move for no reason, as a share of the distance between those of different images."""

BATCH = 32

FEW = 8  # images that most checks look at

Said = tuple[Level, str, str]  # a finding before it has a name


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: of the check.
        level: "ok", "note" (for the user to judge) or "fault".
        evidence: what was seen, with figures.
        advice: what to do; empty where nothing is.
    """

    name: str
    level: Level
    evidence: str
    advice: str = ""


@dataclass(frozen=True)
class Score:
    """How embeddings rank their images: AP per query in % (NaN where there is no match), Rank-1 in %."""

    ap: np.ndarray
    rank1: float

    @property
    def mean(self) -> float:
        return float(np.nanmean(self.ap))

    def better_than(self, other: Score, margin: float) -> bool:
        difference = self.ap - other.ap
        return float(np.nanmean(difference)) >= margin and interval(difference, seed=0)[0] > 0.0


@dataclass(frozen=True)
class Subject:
    """A victim and what it is looked at with: images N×3×H×W in [0, 1] on its device, int64 N labels."""

    victim: Victim
    images: Tensor
    identities: np.ndarray
    cameras: np.ndarray

    @property
    def name(self) -> str:
        return self.victim.name or type(self.victim).__name__

    @property
    def purifies(self) -> bool:
        """Whether the victim has an input transformation of its own."""
        return type(self.victim).purify is not Victim.purify

    def embed(self, images: Tensor) -> Tensor:
        """Checked, without gradients, in batches; copies, for one that writes to its images."""
        with torch.no_grad():
            return torch.cat([embed(self.victim, part.clone(), self.name).float() for part in images.split(BATCH)])

    @functools.cached_property
    def few(self) -> Tensor:
        return self.images[:FEW]

    @functools.cached_property
    def apart(self) -> float:
        """The distance between embeddings of different images: the median of a few; never nothing, for it divides."""
        embeddings = self.embed(self.few)
        between = torch.cdist(embeddings, embeddings).flatten()
        median = float(between[between > 0].median()) if (between > 0).any() else 0.0
        return max(median, 1e-3 * float(embeddings.norm(dim=1).mean()), 1e-12)

    def moved(self, one: Tensor, other: Tensor) -> float:
        """The largest distance between two embeddings of one image, as a share of `apart`."""
        return float((one.float() - other.float()).norm(dim=1).max()) / self.apart

    @functools.cached_property
    def varies(self) -> float:
        """How far two passes over the same images are apart, as `moved`."""
        return self.moved(self.embed(self.few), self.embed(self.few))

    @functools.cached_property
    def declared(self) -> Distance:
        return self.victim.distance if self.victim.distance in get_args(Distance) else "euclidean"

    @functools.cached_property
    def embeddings(self) -> Tensor:
        return self.embed(self.images)

    @functools.cached_property
    def collapsed(self) -> bool:
        """True where all images have the same embedding, so that nothing ranks."""
        mean = self.embeddings.mean(dim=0)
        return float((self.embeddings - mean).norm(dim=1).max()) <= 1e-5 * float(mean.norm())

    def score(self, embeddings: Tensor, distance: Distance) -> Score:
        between = distances(embeddings, embeddings, distance).cpu().numpy()
        ranking = rank(between, self.identities, self.identities, self.cameras, self.cameras)
        return Score(100.0 * ranking.ap, 100.0 * float(ranking.hits[ranking.valid, 0].mean()))

    @functools.cached_property
    def base(self) -> Score:
        return self.score(self.embeddings, self.declared)

    @functools.cached_property
    def other_inputs(self) -> dict[str, Score]:
        """How it ranks when it is given images as in _INPUTS; without those that it refuses."""
        scores = {}
        for what, (_, change, _) in INPUTS.items():
            try:
                scores[what] = self.score(self.embed(change(self.images)), self.declared)
            except Exception:  # it may refuse what it was never promised
                continue
        return scores


def sample(query: Split, gallery: Split, queries: int = 64, matches: int = 2) -> Split:
    """A few images of a data set for `check`: queries of as many identities as there are, and their gallery images.

    Args:
        queries: at most so many query images.
        matches: at most so many gallery images of each identity, from other cameras than its query.
    """
    _, firsts = np.unique(query.identities, return_index=True)
    spread = firsts[np.unique(np.linspace(0, len(firsts) - 1, min(queries, len(firsts))).round().astype(int))]
    chosen: list[int] = []
    for row in spread:
        other = (gallery.identities == query.identities[row]) & (gallery.cameras != query.cameras[row])
        places = np.flatnonzero(other)
        _, one_each = np.unique(gallery.cameras[places], return_index=True)
        chosen += list(places[one_each][:matches])
    return Split(
        np.concatenate((np.array(query.images[spread]), np.array(gallery.images[chosen]))),
        np.concatenate((query.identities[spread], gallery.identities[chosen])),
        np.concatenate((query.cameras[spread], gallery.cameras[chosen])),
    )


def ready(subject: Any, key: str) -> Victim:
    """`subject` itself, if it is a victim that needs no training.

    Raises:
        BenchError: the bench would have to train it first, or it is no victim.
    """
    if isinstance(subject, Victim):
        return subject
    if isinstance(subject, (Recipe, Defence)):
        what = "is made by the bench of another victim" if isinstance(subject, Defence) else "is trained by the bench"
        raise BenchError(
            f"check-victim is for models that are ready, and {key} {what}: the bench checks it when it has made it"
        )
    raise BenchError(f"{key} is a {type(subject).__name__}: it must be a reid_attack_bench.contracts.Victim")


def ok(evidence: str) -> Said:
    return "ok", evidence, ""


def note(evidence: str, advice: str = "") -> Said:
    return "note", evidence, advice


def fault(evidence: str, advice: str) -> Said:
    return "fault", evidence, advice


def kind_of(result: Any) -> str:
    if isinstance(result, Tensor):
        return f"{type_of(result)} of shape {tuple(result.shape)}"
    return f"a NumPy array of shape {result.shape}" if isinstance(result, np.ndarray) else f"a {type(result).__name__}"


def type_of(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


@contextmanager
def same_draw(device: torch.device) -> Iterator[None]:
    """What a victim draws from torch's own generators is the same each time."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield
