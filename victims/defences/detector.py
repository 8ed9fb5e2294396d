"""A detector that refuses queries: feature squeezing (Xu et al., NDSS 2018, arXiv 1704.01155) of embeddings.

Smoothing an adversarial image or reducing its colours moves its embedding further than that of a clean image. A query
whose embedding moves further than those of nearly all training images is refused; see `Victim.rejects`.

Adaptive attacks know the threshold and the squeezers; He et al. (WOOT 2017, arXiv 1706.04701) defeat feature squeezing
that way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import FitContext, LearnedDefence, State, TrainingData, Victim, WrappedVictim, paired
from reid_attack_bench.validation import check_settings

_BATCH = 32

_LEVELS = 31  # 5 bits per colour value


class _Guarded(WrappedVictim):
    def __init__(self, victim: Victim, threshold: float) -> None:
        super().__init__(victim, "feature-squeezing detector")
        self.threshold, self.citation = threshold, "arXiv 1704.01155"

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.victim.outputs(images)

    def suspicion(self, images: Tensor) -> Tensor:
        return fragility(self.victim, images) - self.threshold


def fragility(victim: Victim, images: Tensor) -> Tensor:
    """Cosine distance by which squeezing moves each embedding: N values, the larger of two squeezers.

    The distance of a victim with a comparison of its own is that.
    """
    embeddings = victim.embed(images)
    smooth = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    few = (images * _LEVELS).round() / _LEVELS
    return torch.maximum(*(_moved(victim, embeddings, victim.embed(squeezed)) for squeezed in (smooth, few)))


def _moved(victim: Victim, first: Tensor, second: Tensor) -> Tensor:
    if victim.own_comparison:
        return paired(victim, first, second)
    return 1 - functional.cosine_similarity(first, second)


@dataclass(frozen=True)
class SqueezingDetector(LearnedDefence):
    """Refuse queries whose embedding moves too far when they are squeezed.

    Attributes:
        refused: share of clean training images above the threshold.
    """

    version: ClassVar[int] = 2
    refused: Annotated[float, Field(gt=0, lt=1)] = 0.05

    def __post_init__(self) -> None:
        check_settings(self, "detector")

    def fit(self, victim: Victim, data: TrainingData, context: FitContext) -> State:
        """Calibrate the threshold on the training images."""
        moved = []
        with torch.no_grad():
            for first in range(0, len(data.images), _BATCH):
                images, _ = data.batch(list(range(first, min(first + _BATCH, len(data.images)))), context.device)
                moved.append(fragility(victim, images).cpu())
                context.progress(first + len(images), len(data.images), "")
        return {"threshold": torch.quantile(torch.cat(moved).double(), 1 - self.refused)}

    def defend(self, victim: Victim, state: State | None = None) -> Victim:
        assert state is not None  # a LearnedDefence always gets one
        return _Guarded(victim, float(state["threshold"]))
