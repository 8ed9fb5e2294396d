"""Clean rows of a plan, and the gates that they are: what must succeed before a victim is attacked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from reid_attack_bench.plan.plan import CleanRow
from reid_attack_bench.plan.victims import PlannedVictim
from reid_attack_bench.steps.check import check_step
from reid_attack_bench.steps.data import source_of
from reid_attack_bench.steps.embed import clean_step
from reid_attack_bench.steps.rank import clean_rank_step
from reid_attack_bench.steps.reproduce import reproduce_step
from reid_attack_bench.steps.step import Step


class CleanRows:
    """Plans victims without attack.

    Attributes:
        data: name → data step.
        add: puts a step into the plan; returns the one of its key.
        passes: precision and compilation of victims, as part of a step's implementation.
        batch_size: of the suite, for the checks.
        rows: (victim, data set) → row, in the order of planning.
    """

    def __init__(
        self, data: Mapping[str, Step], add: Callable[[Step], Step], passes: Mapping[str, Any], batch_size: int
    ) -> None:
        self.data, self.add, self.passes, self.batch_size = data, add, passes, batch_size
        self.rows: dict[tuple[str, str], CleanRow] = {}
        self._ranks: dict[tuple[str, str], Step] = {}

    def row(self, victim: PlannedVictim, name: str) -> CleanRow:
        """The row of `victim` on data set `name`, with its steps and with the rows of its gates."""
        if (victim.label, name) not in self.rows:
            self.plan_gates(victim)
            self._plan(victim, name)
        return self.rows[victim.label, name]

    def plan_gates(self, victim: PlannedVictim) -> None:
        """Plan the rows on which `gate` of `victim` depends."""
        if victim.defends is not None and self._published(victim.defends):
            self.plan_gates(victim.defends)
        for name in [victim.home] * (victim.home in self.data) + self._published(victim):
            self._plan(victim, name)

    def gate(self, victim: PlannedVictim, name: str = "") -> tuple[str, ...]:
        """Keys of the steps that must succeed before `victim` is source or target, or is embedded on data set `name`.

        They are the clean ranking at home, and the comparisons with published values, for which it is embedded first.
        """
        home = (self._rank(victim, victim.home).key,) if victim.home in self.data else ()
        return home if name in self._published(victim) else (*home, *self.figures(victim))

    def figures(self, victim: PlannedVictim) -> tuple[str, ...]:
        """Keys of the steps that compare `victim`, and the one that it defends, with published values."""
        ranks = {name: self._rank(victim, name) for name in self._published(victim)}
        own = [self.add(reproduce_step(rank, victim.published[name])).key for name, rank in ranks.items()]
        return (*own, *(self.figures(victim.defends) if victim.defends else ()))

    def notes(self, victims: Iterable[PlannedVictim]) -> list[str]:
        """One line per reason for which no published value of a victim can be checked."""
        reasons: dict[str, list[str]] = {}
        planned = {label for label, _ in self.rows}
        for victim in victims:
            if victim.published and victim.label in planned and not self._published(victim):
                reasons.setdefault(self._why_unchecked(victim), []).append(victim.label)
        return [f"Clean figure not checked: {why} ({', '.join(labels)})." for why, labels in reasons.items()]

    def _why_unchecked(self, victim: PlannedVictim) -> str:
        others = [name for name in victim.published if name in self.data]
        if others:
            return f"published on {' and '.join(others)}, but what is read here by that name is another data set"
        verb = "is" if len(victim.published) == 1 else "are"
        return f"published on {' and '.join(victim.published)}, which {verb} not in this suite"

    def _published(self, victim: PlannedVictim) -> list[str]:
        """Data sets of the suite on which values of `victim` were published; not others of the same name."""
        known = [name for name in victim.published if name in self.data]
        return [name for name in known if source_of(self.data[name]).genuine]

    def _plan(self, victim: PlannedVictim, name: str) -> None:
        rank = self._rank(victim, name)
        keys = (victim.step.key, rank.inputs["features"], rank.key, self._check(victim).key)
        source, home = source_of(self.data[name]), victim.home == name
        row = CleanRow(
            victim.label, name, source.synthetic, home, *keys, bool(source.withdrawn), figure_keys=self.figures(victim)
        )
        self.rows.setdefault((victim.label, name), row)

    def _rank(self, victim: PlannedVictim, name: str) -> Step:
        """The clean ranking of `victim` on data set `name`."""
        if (victim.label, name) not in self._ranks:
            data, home = self.data[name], victim.home == name
            gate = () if home else self.gate(victim, name)
            features = self.add(clean_step(victim.step, data, self.passes, gate, victim.randomised))
            rank = clean_rank_step(features, victim.step, data, victim.expected_rank1 if home else 0.0)
            self._ranks[victim.label, name] = self.add(rank)
        return self._ranks[victim.label, name]

    def _check(self, victim: PlannedVictim) -> Step:
        """The checks of a victim on its training data set; on the first of the suite where that is unknown."""
        home = victim.home if victim.home in self.data else next(iter(self.data))
        return self.add(check_step(victim.step, self.data[home], self.batch_size))
