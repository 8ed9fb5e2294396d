"""FGSM and PGD on the classifier's logits: the classification baselines that the Mis-Ranking paper compares with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import Batch, Need, State, ThreatModel, Victim
from reid_attack_bench.errors import BenchError

from .gradient import ascend, auto_step, uniform_start


def misclassification(source: Victim, clean: Tensor) -> Callable[[Tensor], Tensor]:
    """Cross entropy away from the class that `source` predicts on the clean images; N values.

    Test identities are not among the classifier's, so the predicted class stands for the true one and no
    label is needed.
    """

    def logits_of(images: Tensor) -> Tensor:
        logits = source.logits(images)
        if logits is None:
            raise BenchError(f"{source.name} has no classifier, which attacks on logits need")
        return logits

    with torch.no_grad():
        predicted = logits_of(clean).argmax(dim=1)
    return lambda images: functional.cross_entropy(logits_of(images), predicted, reduction="none")


@dataclass(frozen=True)
class FGSM:
    """One signed step of size epsilon from the clean image (Goodfellow et al., ICLR 2015, arXiv 1412.6572)."""

    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[Need]] = frozenset({"gradients", "logits"})
    citation: ClassVar[str] = "arXiv 1412.6572"

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        objective = misclassification(source, batch.images)
        return ascend(objective, batch.images, batch.images, threat, steps=1, step_size=threat.radius)


@dataclass(frozen=True)
class PGD:
    """Projected gradient descent on the logits (Madry et al., ICLR 2018, arXiv 1706.06083).

    Attributes:
        steps: number of signed-gradient steps.
        step_size: in 1/255; by default 2.5·epsilon/steps.
        random_start: begin at a uniform draw from the ball instead of the clean image.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[Need]] = frozenset({"gradients", "logits"})
    citation: ClassVar[str] = "arXiv 1706.06083"
    steps: int = 20
    step_size: float | None = None
    random_start: bool = True

    @property
    def craft_work(self) -> float:
        return 3.0 * self.steps

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        start = uniform_start(batch.images, threat.radius, generator) if self.random_start else batch.images
        step = auto_step(threat, self.steps, self.step_size)
        objective = misclassification(source, batch.images)
        return ascend(objective, batch.images, start, threat, steps=self.steps, step_size=step)
