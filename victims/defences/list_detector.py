"""A detector that sees the result list of a query, after MEAAD (Wang et al., ICCV 2021, arXiv 2108.09891).

An adversarial query retrieves images that do not belong together with it. MEAAD describes a query by its relations to
the images at the head of its list and by their relations to each other, as seen by several expert models, and trains a
classifier on adversarial examples. Here the two relations are two mean distances in the victim's own embeddings, and a
threshold on their ratio is calibrated on clean images: no other models, and no attack that it was trained on.

An adaptive attack that sees the gallery descends the score; see `adversary.result_list`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from reid_attack_bench.contracts import (
    FitContext,
    LearnedDefence,
    State,
    TrainingData,
    Victim,
    WrappedVictim,
)
from reid_attack_bench.errors import BenchError
from reid_attack_bench.validation import check_settings

_BATCH = 32


class _Listed(WrappedVictim):
    def __init__(self, victim: Victim, length: int, threshold: float) -> None:
        super().__init__(victim, "result-list detector")
        self.list_length, self.threshold, self.citation = length, threshold, "arXiv 2108.09891"

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.victim.outputs(images)

    def suspicion_in_list(self, queries: Tensor, nearest: Tensor, distances: Tensor) -> Tensor:
        return inconsistency(nearest, distances, self) - self.threshold


def inconsistency(nearest: Tensor, apart: Tensor, victim: Victim) -> Tensor:
    """How much farther a query is from its nearest gallery images than these are from each other: N ratios.

    Args:
        nearest: N×k×D embeddings at the head of each list.
        apart: N×k, their distances to the query.
        victim: whose comparison the distances are of.
    """
    count = nearest.shape[1]
    among = (
        torch.stack([victim.compare(images, images) for images in nearest])
        if victim.own_comparison
        else torch.func.vmap(lambda images: victim.compare(images, images))(nearest)
    )
    others = ~torch.eye(count, dtype=torch.bool, device=nearest.device)
    spread = among[:, others].mean(dim=1)
    return apart.mean(dim=1) / spread.clamp_min(1e-6)


@dataclass(frozen=True)
class ListDetector(LearnedDefence):
    """Refuse queries that are too far from their nearest gallery images, compared with these among themselves.

    Attributes:
        length: gallery images at the head of the list.
        refused: share of clean training images above the threshold, each ranked among the others.
    """

    version: ClassVar[int] = 1
    length: Annotated[int, Field(ge=2)] = 10
    refused: Annotated[float, Field(gt=0, lt=1)] = 0.05

    def __post_init__(self) -> None:
        check_settings(self, "list-detector")

    def fit(self, victim: Victim, data: TrainingData, context: FitContext) -> State:
        """Calibrate the threshold on the training images.

        Raises:
            BenchError: there are too few of them for a list.
        """
        total = len(data.images)
        if total <= self.length:
            raise BenchError(f"list-detector: {total} training images are too few for lists of {self.length}")
        batches = [list(range(first, min(first + _BATCH, total))) for first in range(0, total, _BATCH)]
        with torch.no_grad():
            gallery = torch.cat([victim.embed(data.batch(rows, context.device)[0]) for rows in batches])
            found = []
            for rows in batches:
                apart = victim.compare(gallery[rows], gallery)
                apart[range(len(rows)), rows] = torch.inf  # itself
                near = apart.topk(self.length, dim=1, largest=False)
                found.append(inconsistency(gallery[near.indices], near.values, victim))
                context.progress(rows[-1] + 1, total, "")
        return {"threshold": torch.quantile(torch.cat(found).double().cpu(), 1 - self.refused)}

    def defend(self, victim: Victim, state: State | None = None) -> Victim:
        assert state is not None  # a LearnedDefence always gets one
        return _Listed(victim, self.length, float(state["threshold"]))
