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

An attack that is to impersonate moves towards the mean of the guide images of its target instead, and reads no
references. The options for transfer are those of `common.transfer`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from reid_attack_bench.contracts import Attack, Batch, Need, Reads, State, ThreatModel, Victim
from reid_attack_bench.errors import BenchError
from reid_attack_bench.validation import Count, Positive, Share, check_settings

from .common.ascent import Steps, ascend, in_chunks, uniform_start
from .common.objectives import References, View, embedding_distance, part_of
from .common.objectives.targeted import approach
from .common.transfer import GradientOptions, Objective, TransferOptions, Transform, seen_through, with_own_images


def _craft(
    attack: MetricFGSM | MetricPGD,
    source: Victim,
    batch: Batch,
    start: Tensor,
    threat: ThreatModel,
    steps: Steps,
    drawn: Tensor | None,
) -> Tensor:
    def climb(rows: slice) -> Tensor:
        part = part_of(batch, rows)
        objective, under = attack.objective_on(source, part)
        objective = attack.boosted(objective, under, None if drawn is None else drawn[:, rows])
        return ascend(objective, source, part.images, start[rows], threat, steps)

    return in_chunks(climb, source, len(batch.images))


Objectives = tuple[Objective, Callable[[Transform], Objective]]
"""An objective, and the same under a transformation, see `common.transfer.GradientOptions.boosted`."""


def objective_on(source: Victim, batch: Batch, references: References) -> Objectives:
    """The objective of this module: of impersonation if the batch has targets."""
    if batch.targets is not None:
        objective = approach(View(source, batch))
        return objective, seen_through(objective)
    start: list[Tensor] = []
    objective = embedding_distance(source, batch, references, start)
    if references != "self":
        return objective, seen_through(objective)
    return objective, with_own_images(
        lambda view: embedding_distance(view.source, view.batch, "self", start), View(source, batch)
    )


def _needs(references: References) -> frozenset[Need]:
    return frozenset({"gradients"} if references == "self" else {"gradients", "labels", "gallery"})


def _check(attack: MetricFGSM | MetricPGD) -> None:
    name = attack.name
    check_settings(attack, name)
    attack.check_options(name)
    if attack.references == "self" and attack.start == 0:
        raise BenchError(f"{name}: start must be above 0 with references self: at the clean image the gradient is zero")


@dataclass(frozen=True)
class MetricFGSM(GradientOptions, Attack):
    """One signed-gradient step away from the reference embeddings, to a corner of the ball.

    Attributes:
        references: "self" or "same_identity", see the module docstring.
        start: radius of the random start as a fraction of epsilon; only used with references="self".
    """

    name: ClassVar[str] = "metric_fgsm"
    version: ClassVar[int] = 1
    family: ClassVar[str] = "embedding"
    impersonates: ClassVar[bool] = True
    citation: ClassVar[str] = "arXiv 1901.10650"
    references: References = "self"
    start: Share = 0.5

    def __post_init__(self) -> None:
        _check(self)

    @property
    def craft_work(self) -> float:
        return 3.0 * self.scales

    @property
    def needs(self) -> frozenset[Need]:
        return _needs(self.references)

    @property
    def reads(self) -> Reads:
        return "distances"

    def objective_on(self, source: Victim, batch: Batch) -> Objectives:
        return objective_on(source, batch, self.references)

    def draws_each_image(self, threat: ThreatModel) -> bool:
        return self.diversity == 0

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        away = self.start if self.references == "self" else 0.0
        start = uniform_start(batch.images, away * threat.radius, generator) if away else batch.images
        drawn = self.drawn(1, len(batch.images), generator)
        return _craft(self, source, batch, start, threat, Steps(1, (1.0 + away) * threat.radius), drawn)


@dataclass(frozen=True)
class MetricPGD(TransferOptions, Attack):
    """Iterated Metric-FGSM: signed-gradient steps, each projected into the ball.

    Attributes:
        steps: number of signed-gradient steps.
        step_size: step size in 1/255; None for 2.5·epsilon/steps.
        references: "self" or "same_identity", see the module docstring.
        start: radius of the random start as a fraction of epsilon.
    """

    name: ClassVar[str] = "metric_pgd"
    version: ClassVar[int] = 1
    family: ClassVar[str] = "embedding"
    impersonates: ClassVar[bool] = True
    citation: ClassVar[str] = "arXiv 1901.10650"
    steps: Count = 20
    step_size: Positive | None = None
    references: References = "self"
    start: Share = 1.0

    def __post_init__(self) -> None:
        _check(self)

    @property
    def craft_work(self) -> float:
        return 3.0 * self.steps * self.scales

    @property
    def needs(self) -> frozenset[Need]:
        return _needs(self.references)

    @property
    def reads(self) -> Reads:
        return "distances"

    def objective_on(self, source: Victim, batch: Batch) -> Objectives:
        return objective_on(source, batch, self.references)

    def draws_each_image(self, threat: ThreatModel) -> bool:
        return self.diversity == 0

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        start = uniform_start(batch.images, self.start * threat.radius, generator) if self.start else batch.images
        count = self.steps_within(threat)
        drawn = self.drawn(count, len(batch.images), generator)
        return _craft(self, source, batch, start, threat, self.steps_of(threat, count, self.step_size), drawn)
