"""Metric-FGSM and its iterative variant: attacks on the embedding (Bai et al., arXiv 1901.10650).

The attack moves each embedding away from reference embeddings of the source:

- references="self" (default, no labels, no gallery): the embedding of the same clean image. At the clean image this
  distance and its gradient are zero, so the attack starts from uniform noise in the ball of radius `start`·epsilon.
  (Bouniot et al., CVPRW 2020, call the iterative variant SMA.)
- references="same_identity", the setting of Bai et al.: the embeddings of all clean images of the same identity on the
  side that is not attacked (the gallery if queries are attacked, and vice versa). The objective is the mean distance to
  them. This is an oracle: it needs labels and the images of that side. An image without such references uses "self".

Distances are those that the source ranks by: squared Euclidean, or 1 − cosine. (Bai et al. use the squared Euclidean
distance of L2-normalised embeddings, which is twice the cosine distance.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from reid_attack_bench.contracts import Attack, Batch, Need, State, ThreatModel, Victim
from reid_attack_bench.errors import BenchError
from reid_attack_bench.validation import Count, Positive, Share, check_settings

from .common.ascent import ascend, auto_step, in_chunks, uniform_start
from .common.objectives import References, embedding_distance


def _craft(
    source: Victim,
    batch: Batch,
    references: References,
    start: Tensor,
    threat: ThreatModel,
    *,
    steps: int,
    step_size: float,
) -> Tensor:
    def climb(rows: slice) -> Tensor:
        identities = None if batch.identities is None else batch.identities[rows]
        part = Batch(batch.images[rows], identities, batch.references)
        objective = embedding_distance(source, part, references)
        return ascend(objective, source, part.images, start[rows], threat, steps=steps, step_size=step_size)

    return in_chunks(climb, source, len(batch.images))


def _needs(references: References) -> frozenset[Need]:
    return frozenset({"gradients"} if references == "self" else {"gradients", "labels", "gallery"})


def _check(attack: MetricFGSM | MetricPGD, name: str) -> None:
    check_settings(attack, name)
    if attack.references == "self" and attack.start == 0:
        raise BenchError(f"{name}: start must be above 0 with references self: at the clean image the gradient is zero")


@dataclass(frozen=True)
class MetricFGSM(Attack):
    """One signed-gradient step away from the reference embeddings, to a corner of the ball.

    Attributes:
        references: "self" or "same_identity", see the module docstring.
        start: radius of the random start as a fraction of epsilon; only used with references="self".
    """

    version: ClassVar[int] = 1
    family: ClassVar[str] = "embedding"
    citation: ClassVar[str] = "arXiv 1901.10650"
    references: References = "self"
    start: Share = 0.5

    def __post_init__(self) -> None:
        _check(self, "metric_fgsm")

    @property
    def needs(self) -> frozenset[Need]:
        return _needs(self.references)

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        away = self.start if self.references == "self" else 0.0
        start = uniform_start(batch.images, away * threat.radius, generator)
        step = (1.0 + away) * threat.radius
        return _craft(source, batch, self.references, start, threat, steps=1, step_size=step)


@dataclass(frozen=True)
class MetricPGD(Attack):
    """Iterated Metric-FGSM: signed-gradient steps, each projected into the ball.

    Attributes:
        steps: number of signed-gradient steps.
        step_size: step size in 1/255; None for 2.5·epsilon/steps.
        references: "self" or "same_identity", see the module docstring.
        start: radius of the random start as a fraction of epsilon.
    """

    version: ClassVar[int] = 1
    family: ClassVar[str] = "embedding"
    citation: ClassVar[str] = "arXiv 1901.10650"
    steps: Count = 20
    step_size: Positive | None = None
    references: References = "self"
    start: Share = 1.0

    def __post_init__(self) -> None:
        _check(self, "metric_pgd")

    @property
    def craft_work(self) -> float:
        return 3.0 * self.steps

    @property
    def needs(self) -> frozenset[Need]:
        return _needs(self.references)

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        start = uniform_start(batch.images, self.start * threat.radius, generator)
        step = auto_step(threat, self.steps, self.step_size)
        return _craft(source, batch, self.references, start, threat, steps=self.steps, step_size=step)
