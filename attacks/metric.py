"""Metric-FGSM and its iterative form: move the embedding, not the class (Bai et al., arXiv 1901.10650).

Which reference features the embedding is driven away from is the whole definition, so to be exact:

- references="self" (default, no label, no gallery): the source's embedding of the *same clean image*. At the
  clean image this distance is zero and so is its gradient; therefore the attack starts at a uniform draw from
  the ball of radius `start`·epsilon. (Bouniot et al., CVPRW 2020, call the iterative form SMA.)
- references="same_identity": Bai et al.'s own setting. The references are the source's embeddings of all *clean
  images of the same identity on the side of the data that is not attacked* (the gallery when queries are
  attacked, the queries when the gallery is); the objective is the mean distance to them. This is an oracle: it
  needs labels and that side's images. An image without such a reference falls back to "self".

Distances are those the source ranks by: squared Euclidean on the embeddings, or 1 − cosine. (Bai et al. use the
squared Euclidean distance of L2-normalised embeddings, which is twice the cosine distance.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from reid_attack_bench.contracts import Attack, Batch, Need, State, ThreatModel, Victim
from reid_attack_bench.errors import BenchError
from reid_attack_bench.validation import Count, Positive, Share, check_settings

from .common.ascent import ascend, auto_step, in_parts, uniform_start
from .common.objectives import References, embedding_distance


def _climbed(
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

    return in_parts(climb, source, len(batch.images))


def _needs(references: References) -> frozenset[Need]:
    return frozenset({"gradients"} if references == "self" else {"gradients", "labels", "gallery"})


def _check(attack: MetricFGSM | MetricPGD, name: str) -> None:
    check_settings(attack, name)
    if attack.references == "self" and attack.start == 0:
        raise BenchError(f"{name}: start must be above 0 with references self: at the clean image the gradient is zero")


@dataclass(frozen=True)
class MetricFGSM(Attack):
    """One signed step away from the reference embeddings, ending on a corner of the ball.

    Attributes:
        references: "self" or "same_identity"; see the module's text.
        start: radius of the random start as a fraction of epsilon; used with references="self".
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
        return _climbed(source, batch, self.references, start, threat, steps=1, step_size=step)


@dataclass(frozen=True)
class MetricPGD(Attack):
    """Metric-FGSM iterated: signed steps, each projected into the ball.

    Attributes:
        steps: number of signed-gradient steps.
        step_size: in 1/255; by default 2.5·epsilon/steps.
        references: "self" or "same_identity"; see the module's text.
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
        return _climbed(source, batch, self.references, start, threat, steps=self.steps, step_size=step)
