"""Auto-PGD on objectives of retrieval (engine: Croce and Hein, ICML 2020, arXiv 2003.01690).

Each restart has a random start of its own and climbs the next of `objectives`, see `common.objectives`. The restart
that is kept is chosen per image by one yardstick, whatever it climbed, and without labels: see `common.yardstick`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from reid_attack_bench.contracts import Attack, Batch, Need, Reads, State, ThreatModel, Victim
from reid_attack_bench.errors import BenchError
from reid_attack_bench.validation import Count, check_settings

from .common.ascent import in_chunks, uniform_start
from .common.auto_pgd import Points, Schedule, auto_pgd
from .common.objectives import LOGITS, NEEDS, Name, Ranks, TargetReference, View, objective_for, part_of, yardstick
from .common.transfer import GradientOptions, seen_through, with_own_images


@dataclass(frozen=True)
class APGD(GradientOptions, Attack):
    """Auto-PGD with restarts that differ in start and objective.

    The default is what left least mAP at equal passes (`python -m benchmarks strength`): one climb of the ranking. Two
    climbs of half the length left more, whether they differed in start or in objective.

    With the options of `common.transfer.GradientOptions` points are compared by the objective as they see it.

    Attributes:
        objectives: what the restarts climb, in turn; see `common.objectives.objective_for`. Not read by an attack that
            impersonates, which approaches its target.
        restarts: number of climbs per image.
        steps: points evaluated per climb: as many forward passes, one backward pass less. With several restarts the
            last point of each takes another forward pass.
        schedule: sizes of the steps: "linear", from 2·epsilon to 0; or "checkpoints", those of the paper, which halve
            it where the ascent stalls.
        near, first, last: ranks of the gallery that the objectives "ranking" and "smooth_ap" move, see
            `common.objectives.ranking.Ranks`: the own nearest `near` are to be found after those of rank `first` to
            `last`.
        target: distance to a target identity: "mean" over its guide images, or to the "nearest" of them.
    """

    version: ClassVar[int] = 1
    citation: ClassVar[str] = "arXiv 2003.01690"
    family: ClassVar[str] = "embedding"
    impersonates: ClassVar[bool] = True
    takes_members: ClassVar[bool] = True
    objectives: tuple[Name, ...] = ("ranking",)
    restarts: Count = 1
    steps: Count = 50
    schedule: Schedule = "linear"
    near: Count = 8
    first: Count = 31
    last: Count = 200
    target: TargetReference = "mean"

    def __post_init__(self) -> None:
        check_settings(self, "apgd")
        self.check_options("apgd")
        if not self.objectives:
            raise BenchError(f"apgd: objectives is empty: give at least one of {', '.join(NEEDS)}")
        if not self.near < self.first <= self.last:
            raise BenchError(
                f"apgd: near < first <= last must hold, not {self.near}, {self.first}, {self.last}: near and wrong "
                "images are other images"
            )
        if LOGITS.issuperset(self.objectives):
            object.__setattr__(self, "family", "logits")

    @property
    def craft_work(self) -> float:
        return 3.0 * self.steps * self.restarts * self.scales

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset[Need]({"gradients"}).union(*(NEEDS[name] for name in self.objectives))

    @property
    def reads(self) -> Reads:
        """Embeddings where it climbs "fna", which takes their mean. Several climbs are compared by distances."""
        if "fna" in self.objectives:
            return "embeddings"
        return "logits" if self.restarts == 1 and LOGITS.issuperset(self.objectives) else "distances"

    def without_logits(self) -> APGD | None:
        """The same without objectives on logits; on the own embedding if it has no others."""
        return replace(self, objectives=tuple(name for name in self.objectives if name not in LOGITS) or ("self",))

    def draws_each_image(self, threat: ThreatModel) -> bool:
        return self.restarts == 1 and self.diversity == 0

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        ranks = Ranks(self.near, self.first, self.last)
        starts = [uniform_start(batch.images, threat.radius, generator) for _ in range(self.restarts)]
        drawn = [self.drawn(self.steps, len(batch.images), generator) for _ in range(self.restarts)]

        def climb(rows: slice) -> Tensor:
            view = View(source, part_of(batch, rows))
            best: Points | None = None
            judged = yardstick(view, ranks=ranks, target=self.target) if self.restarts > 1 else None
            for restart, start in enumerate(starts):
                name = self.objectives[restart % len(self.objectives)]
                at_start: list[Tensor] = []
                objective = objective_for(name, view, ranks=ranks, target=self.target, start=at_start)
                under = seen_through(objective)
                if name == "self" and view.batch.targets is None:
                    own = functools.partial(objective_for, "self", start=at_start)
                    under = with_own_images(own, view)
                numbers = drawn[restart]
                objective = self.boosted(objective, under, None if numbers is None else numbers[:, rows])
                found = auto_pgd(
                    objective, source, view.batch.images, start[rows], threat, steps=self.steps, schedule=self.schedule
                )
                if judged is not None:
                    with torch.no_grad():
                        found = replace(found, values=judged(found.images))
                best = found if best is None else found.where(found.above(best), best)
            assert best is not None
            return best.images

        return in_chunks(climb, source, len(batch.images))
