"""How well the attack does on people that it is not trained with: a part of the training identities, kept aside.

Never the test queries: the checkpoint is chosen by these figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from reid_attack_bench.contracts import Distance, ThreatModel, TrainingData, Victim, distances, to_float
from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics.ranking import rank, summary

from .networks import Networks

LEAST = 4  # identities; among fewer a ranking says nothing

QUERIES = 2  # per identity, from different cameras: what is left of a check's time goes to training

CHUNK = 32  # images a forward pass


@dataclass(frozen=True)
class Split:
    """Indices of training images: those to train with, and those of the held-out identities (maybe none)."""

    train: np.ndarray
    held_out: np.ndarray
    cameras: np.ndarray
    """int64, of the held-out images: as in the data, or all different where it has no pairs across cameras."""


def split(data: TrainingData, share: float, least_left: int, generator: torch.Generator) -> Split:
    """Hold out a share of the identities, at least `LEAST`; none, and no number drawn, with a share of 0.

    They are drawn among identities seen by two cameras, or, where too few are, among those with two images.

    Raises:
        BenchError: too few identities can be held out, or fewer than `least_left` would be left.
    """
    everything = np.arange(len(data.identities))
    if share == 0:
        return Split(everything, everything[:0], data.cameras[:0])
    people = np.unique(data.identities)
    count = max(LEAST, round(share * len(people)))

    def seen_by_two(cameras: np.ndarray) -> np.ndarray:
        pairs = np.unique(np.stack([data.identities, cameras]), axis=1)
        candidates, views = np.unique(pairs[0], return_counts=True)
        return candidates[views >= 2]

    cameras, candidates = data.cameras, seen_by_two(data.cameras)
    if len(candidates) < count:
        cameras, candidates = everything, seen_by_two(everything)
    if len(candidates) < count or len(people) - count < least_left:
        raise BenchError(
            f"misranking: {data.name} has {len(people)} training identities, too few to hold out {count} (of two "
            f"images or more) and leave {least_left} for a batch: set held_out to 0, or lower batch_identities"
        )
    chosen = candidates[torch.randperm(len(candidates), generator=generator)[:count].numpy()]
    held = np.isin(data.identities, chosen)
    return Split(everything[~held], everything[held], cameras[held])


@dataclass(frozen=True)
class HeldOut:
    """Queries of the held-out identities and the clean images that they are ranked against.

    Attributes:
        images: float32 N×3×H×W in [0, 1], the queries.
        rows: int64 N, where the queries are among the M held-out images.
        features: M×D, of the clean images, on the CPU.
        identities, cameras: int64 M. A query's own camera is left out of its ranking, and itself with it.
        distance: how the source ranks.
    """

    images: Tensor
    rows: np.ndarray
    features: Tensor
    identities: np.ndarray
    cameras: np.ndarray
    distance: Distance

    @classmethod
    def of(cls, parts: Split, data: TrainingData, source: Victim, device: torch.device) -> HeldOut:
        """The queries are one image each of the first `QUERIES` cameras of each identity."""
        identities = data.identities[parts.held_out]
        rows = []
        for identity in np.unique(identities):
            members = np.flatnonzero(identities == identity)
            _, first = np.unique(parts.cameras[members], return_index=True)
            rows += members[first[:QUERIES]].tolist()
        images = to_float(data.images[parts.held_out[rows]], device)
        with torch.no_grad():
            chunks = np.array_split(parts.held_out, -(-len(parts.held_out) // CHUNK))
            features = torch.cat([source.embed(to_float(data.images[chunk], device)).float().cpu() for chunk in chunks])
        return cls(images, np.array(rows), features, identities, parts.cameras, source.distance)

    def clean(self) -> tuple[float, float]:
        """Rank-1 and mAP of the clean queries, in percent."""
        return self._ranked(self.features[self.rows])

    def attacked(self, networks: Networks, source: Victim, threat: ThreatModel) -> tuple[float, float]:
        """Rank-1 and mAP of the adversarial queries in 8 bits, in percent. Leaves `networks` in training mode."""
        networks.eval()
        noise_source = torch.Generator().manual_seed(0) if "gumbel_at_test" in networks.behaviours else None
        features = []
        with torch.no_grad(), parametrize.cached():
            for clean in self.images.split(CHUNK):
                adversarial = networks.adversarial(clean, threat, noise_source).mul(255.0).round().div(255.0)
                features.append(source.embed(adversarial).float().cpu())
        networks.train()
        return self._ranked(torch.cat(features))

    def _ranked(self, features: Tensor) -> tuple[float, float]:
        apart = distances(features, self.features, self.distance).numpy()
        queries = self.identities[self.rows], self.cameras[self.rows]
        scores = summary(rank(apart, queries[0], self.identities, queries[1], self.cameras))
        return scores["rank1"], scores["mAP"]
