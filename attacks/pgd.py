"""FGSM and PGD on the classifier's logits: the classification baselines that the Mis-Ranking paper compares with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import Batch, Need, State, ThreatModel, Victim
from reid_attack_bench.errors import BenchError

from .gradient import ascend, auto_step, uniform_start

Objective = Literal["untargeted", "least_likely", "cosine"]


def misclassification(source: Victim, clean: Tensor, kind: Objective = "untargeted") -> Callable[[Tensor], Tensor]:
    """What an attack on the classifier climbs: images N×3×H×W → N values.

    Test identities are not among the classifier's, so the class that it predicts for the clean image stands
    for the true one and no label is needed.

    Args:
        kind: "untargeted", cross entropy away from the predicted class; "least_likely", minus the cross entropy
            towards the class least likely for the clean image (Kurakin et al., arXiv 1607.02533);
            "cosine", away from the direction of the clean logits: cross entropy asks no more once the class has
            changed, which may leave a query's neighbours as they were; this goes on. Its gradient at the
            clean image is zero, so it needs a random start.
    """

    def logits_of(images: Tensor) -> Tensor:
        logits = source.logits(images)
        if logits is None:
            raise BenchError(f"{source.name} has no classifier, which attacks on logits need")
        return logits

    with torch.no_grad():
        known = logits_of(clean)
    predicted, unlikely = known.argmax(dim=1), known.argmin(dim=1)
    if kind == "untargeted":
        return lambda images: functional.cross_entropy(logits_of(images), predicted, reduction="none")
    if kind == "least_likely":
        return lambda images: -functional.cross_entropy(logits_of(images), unlikely, reduction="none")
    return lambda images: -functional.cosine_similarity(logits_of(images), known)


@dataclass(frozen=True)
class FGSM:
    """One signed step of size epsilon from the clean image (Goodfellow et al., ICLR 2015, arXiv 1412.6572)."""

    version: ClassVar[int] = 1
    family: ClassVar[str] = "logits"
    needs: ClassVar[frozenset[Need]] = frozenset({"gradients", "logits"})
    citation: ClassVar[str] = "arXiv 1412.6572"

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        objective = misclassification(source, batch.images)
        return ascend(objective, source, batch.images, batch.images, threat, steps=1, step_size=threat.radius)


@dataclass(frozen=True)
class PGD:
    """Projected gradient descent on the logits (Madry et al., ICLR 2018, arXiv 1706.06083).

    Attributes:
        steps: number of signed-gradient steps.
        step_size: in 1/255; by default 2.5·epsilon/steps.
        random_start: begin at a uniform draw from the ball instead of the clean image.
        objective: what to climb, see `misclassification`.
    """

    version: ClassVar[int] = 1
    family: ClassVar[str] = "logits"
    needs: ClassVar[frozenset[Need]] = frozenset({"gradients", "logits"})
    citation: ClassVar[str] = "arXiv 1706.06083"
    steps: int = 20
    step_size: float | None = None
    random_start: bool = True
    objective: Objective = "untargeted"

    def __post_init__(self) -> None:
        """Raises BenchError where `objective` is unknown or cannot leave the clean image."""
        if self.objective not in get_args(Objective):
            raise BenchError(f"pgd: objective must be one of {', '.join(get_args(Objective))}, not {self.objective!r}")
        if self.objective == "cosine" and not self.random_start:
            raise BenchError("pgd: objective cosine has no gradient at the clean image and needs random_start: true")

    @property
    def craft_work(self) -> float:
        return 3.0 * self.steps

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        start = uniform_start(batch.images, threat.radius, generator) if self.random_start else batch.images
        step = auto_step(threat, self.steps, self.step_size)
        objective = misclassification(source, batch.images, self.objective)
        return ascend(objective, source, batch.images, start, threat, steps=self.steps, step_size=step)
