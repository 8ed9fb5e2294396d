"""FGSM and PGD on the classifier's logits, the classification baselines of the Mis-Ranking paper."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import ADDED_LATER, Attack, Batch, Need, Reads, State, ThreatModel, Victim
from reid_attack_bench.errors import BenchError
from reid_attack_bench.validation import Count, Positive, check_settings

from .common.ascent import Steps, ascend, in_chunks, uniform_start
from .common.objectives import Objective, logits_of, misclassification
from .common.transfer import GradientOptions, TransferOptions, options_of, seen_through
from .metric import MetricFGSM, MetricPGD


def until_broken(source: Victim, clean: Tensor, start: Tensor, threat: ThreatModel, steps: Steps) -> Tensor:
    """Untargeted ascent in which each image stops once its predicted class differs from that of the clean image.

    Arguments and result as in `common.ascent.ascend`.
    """
    with torch.no_grad():
        predicted = logits_of(source, clean).argmax(dim=1)
    found = threat.project(start, clean)
    going = torch.arange(len(clean), device=clean.device)
    for step in range(steps.count):
        current = found[going].requires_grad_(True)
        logits = logits_of(source, current)
        holds = logits.argmax(dim=1) == predicted[going]
        going = going[holds]
        if not len(going):
            break
        loss = functional.cross_entropy(logits[holds], predicted[going], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, current)
        moved = current.detach()[holds] + steps.size_of(step) * gradient[holds].sign()
        found[going] = threat.project(moved, clean[going])
    return found


@dataclass(frozen=True)
class FGSM(GradientOptions, Attack):
    """One signed step of size epsilon from the clean image (Goodfellow et al., ICLR 2015, arXiv 1412.6572).

    On a source without logits it is `metric_fgsm`, which needs none.
    """

    version: ClassVar[int] = 1
    family: ClassVar[str] = "logits"
    takes_members: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]] = frozenset({"gradients", "logits"})
    citation: ClassVar[str] = "arXiv 1412.6572"

    def __post_init__(self) -> None:
        check_settings(self, "fgsm")
        self.check_options("fgsm")

    @property
    def craft_work(self) -> float:
        return 3.0 * self.scales

    @property
    def reads(self) -> Reads:
        return "logits"

    def without_logits(self) -> MetricFGSM:
        return MetricFGSM(**options_of(self, GradientOptions))

    def draws_each_image(self, threat: ThreatModel) -> bool:
        return True

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        drawn = self.drawn(1, len(batch.images), generator)

        def climb(rows: slice) -> Tensor:
            clean = batch.images[rows]
            objective = misclassification(source, clean, from_clean=not self.changes_gradient)
            objective = self.boosted(objective, seen_through(objective), None if drawn is None else drawn[:, rows])
            return ascend(objective, source, clean, clean, threat, Steps(1, threat.radius))

        return in_chunks(climb, source, len(batch.images))


@dataclass(frozen=True)
class PGD(TransferOptions, Attack):
    """Projected gradient descent on the logits (Madry et al., ICLR 2018, arXiv 1706.06083).

    On a source without logits it is `metric_pgd` with the same steps and options, which needs none.

    Attributes:
        steps: number of signed-gradient steps.
        step_size: step size in 1/255; None for 2.5·epsilon/steps.
        random_start: start from uniform noise in the ball instead of the clean image.
        objective: objective to maximise, see `common.objectives.misclassification`.
        stop_early: stop an image once the source predicts another class for it. Such images barely cross the decision
            boundary, which makes them weaker against other models and against embeddings. Requires objective
            "untargeted" and none of the options for transfer; has no effect on an adapted source. Several sources are
            attacked without logits.
    """

    version: ClassVar[int] = 1
    family: ClassVar[str] = "logits"
    takes_members: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]] = frozenset({"gradients", "logits"})
    citation: ClassVar[str] = "arXiv 1706.06083"
    steps: Count = 20
    step_size: Positive | None = None
    random_start: bool = True
    objective: Objective = "untargeted"
    stop_early: bool = field(default=False, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        check_settings(self, "pgd")
        self.check_options("pgd")
        if self.objective == "cosine" and not self.random_start:
            raise BenchError(
                "pgd: objective cosine requires random_start: true, because its gradient at the clean image is zero"
            )
        if self.stop_early and self.objective != "untargeted":
            raise BenchError(f"pgd: stop_early requires objective untargeted, not {self.objective}")
        if self.stop_early and (self.changes_gradient or self.momentum):
            raise BenchError("pgd: stop_early takes the plain gradient: leave out the options for transfer")
        if self.stop_early:
            object.__setattr__(self, "takes_members", False)

    @property
    def craft_work(self) -> float:
        return 3.0 * self.steps * self.scales

    @property
    def reads(self) -> Reads:
        return "logits"

    def without_logits(self) -> MetricPGD:
        return MetricPGD(steps=self.steps, step_size=self.step_size, **options_of(self, TransferOptions))

    def draws_each_image(self, threat: ThreatModel) -> bool:
        return self.diversity == 0

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        start = uniform_start(batch.images, threat.radius, generator) if self.random_start else batch.images
        steps = self.steps_of(threat, self.steps, self.step_size)
        drawn = self.drawn(self.steps, len(batch.images), generator)

        def climb(rows: slice) -> Tensor:
            clean = batch.images[rows]
            if self.stop_early and not source.adapted:
                return until_broken(source, clean, start[rows], threat, steps)
            from_clean = not (self.random_start or self.changes_gradient)
            objective = misclassification(source, clean, self.objective, from_clean=from_clean)
            objective = self.boosted(objective, seen_through(objective), None if drawn is None else drawn[:, rows])
            return ascend(objective, source, clean, start[rows], threat, steps)

        return in_chunks(climb, source, len(batch.images))
