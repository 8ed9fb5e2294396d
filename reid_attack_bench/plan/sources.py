"""Sources of an attack: one victim, or several at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.plan.attacks import on_source, why_impossible
from reid_attack_bench.plan.victims import PlannedVictim, relation_of
from reid_attack_bench.steps.attack_run import AttackRun
from reid_attack_bench.suites.suite import OTHERS, RELATIONS, AttackEntry


@dataclass(frozen=True)
class PlannedSource:
    """What an attack is crafted on.

    Attributes:
        label: its name in tables: the victim's; "A+B" for several; "all but T" for all sources but the target T.
        members: the victims, in the order of the suite.
        target: label of the only target; empty for any.
    """

    label: str
    members: tuple[PlannedVictim, ...]
    target: str = ""

    @property
    def defended(self) -> bool:
        """Whether one of its members is defended."""
        return any(member.defended for member in self.members)

    def has(self, victim: PlannedVictim) -> bool:
        """Whether `victim` is one of its members."""
        return victim.label in {member.label for member in self.members}

    def attacks(self, target: PlannedVictim, threat: ThreatModel) -> bool:
        """Whether `target` is evaluated under `threat`: a member, or any target where access and roles say so."""
        if self.target:
            return target.label == self.target
        everyone = threat.access == "transfer" and all("source" in member.roles for member in self.members)
        return everyone or self.has(target)

    def relation_to(self, target: PlannedVictim, dataset: str, known: Iterable[str]) -> str:
        """The closest relation between a member and `target`, in the order of suite.RELATIONS; see `relation_of`."""
        found = {relation_of(member, target, dataset, known) for member in self.members}
        return min(found, key=("", *RELATIONS).index)


def sources_of(
    entry: AttackEntry, run: AttackRun, victims: Sequence[PlannedVictim], targets: Iterable[PlannedVictim]
) -> list[PlannedSource]:
    """What `run`, an attack of `entry`, is crafted on: each source alone, several at once, or all but each target.

    The latter leaves out sources on which the attack cannot be crafted, and targets for which no source is left.

    Raises:
        BenchError: an unknown label among its sources.
    """
    able = [victim for victim in victims if victim.is_source]
    if not entry.sources:
        return [PlannedSource(victim.label, (victim,)) for victim in able]
    if entry.sources != (OTHERS,):
        return [_joined(entry, able, {victim.label for victim in victims})]
    shared = [victim for victim in able if "source" in victim.roles]
    usable = [victim for victim in shared if not why_impossible(on_source(run, victim), victim)]
    found = []
    for target in targets:
        # a victim may be in the suite under two labels
        others = [victim for victim in usable if victim.step.key != target.step.key and victim.label != target.label]
        if others:
            found.append(PlannedSource(f"all but {target.label}", tuple(others), target.label))
    return found


def _joined(entry: AttackEntry, able: Sequence[PlannedVictim], labels: set[str]) -> PlannedSource:
    for name in entry.sources:
        if name not in {victim.label for victim in able} | {victim.model for victim in able}:
            known = dict.fromkeys([*(victim.model for victim in able), *(victim.label for victim in able)])
            raise BenchError(
                f"attacks.{entry.label}.sources: no source '{name}' in this suite: {nearest(name, [*known, OTHERS])}"
            )
    members = tuple(v for v in able if v.label in entry.sources or v.model in entry.sources)
    label = "+".join(member.label for member in members)
    if len(members) > 1 and label in labels:
        raise BenchError(f"attacks.{entry.label}.sources: these are called {label}, as a victim is: rename that victim")
    return PlannedSource(label, members)
