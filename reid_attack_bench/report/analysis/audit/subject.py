"""A victim under audit, with the attacks on it."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from reid_attack_bench.report import rows
from reid_attack_bench.report.analysis import controls
from reid_attack_bench.report.analysis.audit.arms import Arm, strongest
from reid_attack_bench.report.results import CleanRow, Results

Found = tuple[str, str]
"""Name of a flag and its evidence."""


@dataclass(frozen=True)
class Subject:
    """A victim on its training data set; `arms` are all attacks on its queries."""

    results: Results
    clean: CleanRow
    arms: list[Arm]

    @functools.cached_property
    def own(self) -> list[Arm]:
        """Attacks by the gradients of the victim itself, those that know its defence among them.

        It may be one of several sources.
        """
        return [arm for arm in self.arms if arm.own and arm.by_gradients]

    @property
    def fell(self) -> bool:
        """Whether an attack on the victim itself, by gradients or queries, left nothing to doubt."""
        return any(arm.own and arm.broken for arm in self.arms)

    @functools.cached_property
    def adaptive(self) -> list[Arm]:
        return [arm for arm in self.own if arm.adaptive]

    @functools.cached_property
    def budgets(self) -> list[tuple[int, int]]:
        """(epsilon, pixels) at which an iterative attack was run on the victim itself, sorted."""
        return sorted({(arm.epsilon, arm.pixels) for arm in self.own if arm.iterative})

    @functools.cached_property
    def clean_ap(self) -> np.ndarray:
        """As `Arm.ap`, without attack."""
        outcome = rows.outcome(self.results, self.clean.rank_key)
        return np.where(outcome.valid, outcome.ap_as_clean, np.nan)

    def by_gradients(self, epsilon: int, pixels: int) -> Arm:
        """The strongest attack by the victim's own gradients within a budget of `budgets`."""
        found = strongest(within(self.own, epsilon, pixels))
        assert found is not None
        return found

    def control(self, epsilon: int, pixels: int) -> Arm | None:
        """The strongest control within a budget; it is picked on the queries on which it is then compared."""
        return strongest(within((arm for arm in self.arms if arm.family == controls.FAMILY), epsilon, pixels))


def within(arms: Iterable[Arm], epsilon: int, pixels: int) -> list[Arm]:
    """Arms whose images another attack with this budget could have returned; 0 pixels stands for all."""
    return [arm for arm in arms if arm.epsilon <= epsilon and (not pixels or 0 < arm.pixels <= pixels)]
