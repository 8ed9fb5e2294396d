"""Validation identities: training identities set aside to choose the best weights, never the test queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from reid_attack_bench.contracts import ThreatModel, TrainingData, Victim, to_float
from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics.ranking import rank, summary

from .networks import Networks

LEAST = 4  # identities; a ranking among fewer means nothing

QUERIES = 2  # per identity, from different cameras; more would slow down training

CHUNK = 32  # images a forward pass


@dataclass(frozen=True)
class IdentitySplit:
    """Indices of the training images, divided by identity.

    Attributes:
        train: int64, images to train on.
        validation: int64, images of the validation identities; may be empty.
        cameras: int64, cameras of the validation images: as in the data, or all different where the data has no pairs
            across cameras.
    """

    train: np.ndarray
    validation: np.ndarray
    cameras: np.ndarray


def split_identities(data: TrainingData, share: float, least_left: int, generator: torch.Generator) -> IdentitySplit:
    """Set aside a share of the identities, at least `LEAST`, for validation.

    They are drawn from the identities seen by two cameras; if there are too few, from those with two images. A share of
    0 sets none aside and draws no random number.

    Raises:
        BenchError: fewer than that many identities are eligible, or fewer than `least_left` would remain for training.
    """
    everything = np.arange(len(data.identities))
    if share == 0:
        return IdentitySplit(everything, everything[:0], data.cameras[:0])
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
    return IdentitySplit(everything[~held], everything[held], cameras[held])


@dataclass(frozen=True)
class ValidationSet:
    """Queries of the validation identities and the clean images that they are ranked against.

    Attributes:
        images: float32 N×3×H×W in [0, 1], the queries.
        rows: int64 N, positions of the queries among the M validation images.
        features: M×D embeddings of the clean validation images, on the CPU.
        identities, cameras: int64 M. Images of the query's identity from its own camera are ignored.
        compare: what the source ranks by, see Victim.compare.
    """

    images: Tensor
    rows: np.ndarray
    features: Tensor
    identities: np.ndarray
    cameras: np.ndarray
    compare: Callable[[Tensor, Tensor], Tensor]

    @classmethod
    def of(cls, parts: IdentitySplit, data: TrainingData, source: Victim, device: torch.device) -> ValidationSet:
        """Take as queries one image from each of the first `QUERIES` cameras of each validation identity."""
        identities = data.identities[parts.validation]
        rows = []
        for identity in np.unique(identities):
            members = np.flatnonzero(identities == identity)
            _, first = np.unique(parts.cameras[members], return_index=True)
            rows += members[first[:QUERIES]].tolist()
        images = to_float(data.images[parts.validation[rows]], device)
        with torch.no_grad():
            chunks = np.array_split(parts.validation, -(-len(parts.validation) // CHUNK))
            features = torch.cat([source.embed(to_float(data.images[chunk], device)).float().cpu() for chunk in chunks])
        return cls(images, np.array(rows), features, identities, parts.cameras, _compare(source, device))

    def clean(self) -> tuple[float, float]:
        """Rank-1 and mAP of the clean queries, in percent."""
        return self.ranked(self.features[self.rows])

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
        return self.ranked(torch.cat(features))

    def ranked(self, features: Tensor) -> tuple[float, float]:
        """Rank-1 and mAP in percent, with N×D embeddings in place of those of the queries."""
        matrix = self.compare(features, self.features).numpy()
        queries = self.identities[self.rows], self.cameras[self.rows]
        scores = summary(rank(matrix, queries[0], self.identities, queries[1], self.cameras))
        return scores["rank1"], scores["mAP"]


def _compare(source: Victim, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """The comparison of `source` for features on the CPU; one of its own is made on the device of its weights."""
    if not source.own_comparison:
        return source.compare
    return lambda query, gallery: source.compare(query.to(device), gallery.to(device)).cpu()
