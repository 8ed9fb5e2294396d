"""A detector that refuses queries: feature squeezing (Xu et al., NDSS 2018, arXiv 1704.01155) on embeddings.

An adversarial image is fragile: smoothed and with fewer colours it moves further in the embedding than a clean one
does. A query that moves further than nearly all training images do is refused. How that counts: `Victim.rejects`.

Its threshold and squeezings are known to an adaptive attack, which He et al. (WOOT 2017, arXiv 1706.04701) showed to
defeat feature squeezing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import FitContext, LearnedDefence, State, TrainingData, Victim, WrappedVictim
from reid_attack_bench.validation import check_settings

_BATCH = 32

_LEVELS = 31  # five bits a colour


class _Guarded(WrappedVictim):
    def __init__(self, victim: Victim, threshold: float) -> None:
        super().__init__(victim, "feature-squeezing detector")
        self.threshold, self.citation = threshold, "arXiv 1704.01155"

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.victim.outputs(images)

    def suspicion(self, images: Tensor) -> Tensor:
        return fragility(self.victim, images) - self.threshold


def fragility(victim: Victim, images: Tensor) -> Tensor:
    """How far each embedding moves when its image is squeezed: N cosine distances, the larger of two squeezings."""
    embeddings = victim.embed(images)
    smooth = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    few = (images * _LEVELS).round() / _LEVELS
    moved = [1 - functional.cosine_similarity(embeddings, victim.embed(squeezed)) for squeezed in (smooth, few)]
    return torch.maximum(*moved)


@dataclass(frozen=True)
class SqueezingDetector(LearnedDefence):
    """Refuse the queries whose embedding moves too far when squeezed.

    Attributes:
        refused: share of clean training images that the threshold refuses.
    """

    version: ClassVar[int] = 2
    refused: Annotated[float, Field(gt=0, lt=1)] = 0.05

    def __post_init__(self) -> None:
        check_settings(self, "detector")

    def fit(self, victim: Victim, data: TrainingData, context: FitContext) -> State:
        """Set the threshold on the training images."""
        moved = []
        with torch.no_grad():
            for first in range(0, len(data.images), _BATCH):
                images, _ = data.batch(list(range(first, min(first + _BATCH, len(data.images)))), context.device)
                moved.append(fragility(victim, images).cpu())
                context.progress(first + len(images), len(data.images), "")
        return {"threshold": torch.quantile(torch.cat(moved).double(), 1 - self.refused)}

    def defend(self, victim: Victim, state: State | None = None) -> Victim:
        assert state is not None  # it has a fit
        return _Guarded(victim, float(state["threshold"]))
