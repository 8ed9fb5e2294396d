"""A suite: which data sets, victims and attacks make one matrix."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.errors import BenchError

RELATIONS = ("white-box", "cross-dataset", "cross-model", "cross-both")
"""Relation between target and source of a cell, on the data set that the target was trained on: the same model; the
same architecture trained on another data set; another architecture trained on the same; both."""

PRECISIONS = ("float32", "bfloat16")

EOT_SAMPLES = 8
"""Draws of a randomised victim that `adaptive: true` averages."""

_WHOLE = {"extra": "forbid"}  # for pydantic: a record with a field that this version does not know is refused


@dataclass(frozen=True)
class VictimEntry:
    """One victim of a suite.

    Attributes:
        label: its name in tables.
        use: registered victim or FILE.py:NAME.
        options: its settings.
        train_on: data sets to train it on, one model each; empty for a victim that comes trained.
        expected_rank1: clean Rank-1 in % below which a trained model counts as failed, on its own data set.
        roles: "source" (crafted on, against every target), "white-box" (crafted on, against itself only), "target".
        defends: label of the victim that this one, a contracts.Defence, is made of; one for each of its models.
    """

    __pydantic_config__ = _WHOLE
    label: str
    use: str
    options: Mapping[str, Any] = field(default_factory=dict)
    train_on: tuple[str, ...] = ()
    expected_rank1: float = 0.0
    roles: tuple[str, ...] = ("source", "target")
    defends: str = ""


@dataclass(frozen=True)
class AttackEntry:
    """One attack of a suite, under one or more threat models.

    Attributes:
        label: its name in tables.
        use: registered attack or FILE.py:NAME.
        options: its settings.
        threats: what it may do; all are run.
        seeds: it is fitted and crafted once with each; empty for the suite's seed alone. Data and victims keep the
            suite's seed, so that seeds differ in the attack and in nothing else.
        adaptive: number of draws of a randomised source that are averaged by an attack that knows the source's defence
            (see `adaptive`); 0 for an attack that does not know it.
    """

    __pydantic_config__ = _WHOLE
    label: str
    use: str
    options: Mapping[str, Any]
    threats: tuple[ThreatModel, ...]
    seeds: tuple[int, ...] = ()
    adaptive: int = 0


@dataclass(frozen=True)
class Contender:
    """One side of a claim: an attack of the suite under one of its threat models, or under several as a curve."""

    __pydantic_config__ = _WHOLE
    attack: str
    threats: tuple[ThreatModel, ...]

    @property
    def epsilons(self) -> set[int]:
        return {threat.epsilon for threat in self.threats}


@dataclass(frozen=True)
class Claim:
    """A claim about two attacks that a run confirms or does not; see report.analysis.findings.

    Attributes:
        claim: in words.
        lower, higher: sides whose `measure` is claimed to be the lower one, and the higher one.
        measure: a column of matrix.csv.
        relation: over which cells, see RELATIONS; the mean over all of them counts.
        at_equal: compare where this measure is the same, read off the curves over threat models; empty to compare the
            two as they are.
    """

    __pydantic_config__ = _WHOLE
    claim: str
    lower: Contender
    higher: Contender
    measure: str = "rank1"
    relation: str = "white-box"
    at_equal: str = ""


@dataclass(frozen=True)
class Suite:
    """A whole matrix.

    Attributes:
        name, description: for people.
        seed: from which every random draw of the run follows.
        image_size: (height, width) in pixels at which images are stored, attacked and evaluated.
        batch_size: images per forward pass; does not change results beyond rounding, but for a victim that draws once
            for a batch. It is halved where a GPU's memory is too small.
        headline_epsilon: the leaderboard is ordered by the worst case at this epsilon.
        datasets: name → options.
        victims, attacks: what is crossed.
        relations: only these cells, see RELATIONS; empty for all.
        findings: claims that the report judges.
        precision: of victims when they are attacked and evaluated, not when they are trained: "float32", or "bfloat16"
            for torch's autocast, meant for GPUs.
        compile: have torch.compile make them faster on a GPU, where it can. Both change results a little.
    """

    __pydantic_config__ = _WHOLE
    name: str
    description: str
    seed: int
    image_size: tuple[int, int]
    batch_size: int
    headline_epsilon: int
    datasets: Mapping[str, Mapping[str, Any]]
    victims: tuple[VictimEntry, ...]
    attacks: tuple[AttackEntry, ...]
    relations: tuple[str, ...] = ()
    findings: tuple[Claim, ...] = ()
    precision: str = "float32"
    compile: bool = False

    def with_seed(self, seed: int) -> Suite:
        return replace(self, seed=seed)

    def with_victim(self, victim: VictimEntry) -> Suite:
        if victim.label in {v.label for v in self.victims}:
            raise BenchError(f"suite {self.name} already has a victim '{victim.label}': give yours another name")
        return replace(self, victims=(*self.victims, victim))

    def with_epsilons(self, epsilons: Iterable[int]) -> Suite:
        """The suite with every attack at these epsilons (steps of 1/255), and at no others.

        Pixel budgets, perturbed images and access stay. The headline epsilon stays where it is among them, else it is
        the smallest, as in a suite that names none. Claims follow where that keeps their meaning:

        - two attacks with one and the same epsilon each: a claim at each of the new epsilons;
        - a curve (`at_equal`) over all epsilons of its attack: the curve over the new ones;
        - any other claim stays where its threat models do, and is dropped where one of them is gone.

        Raises:
            BenchError: no epsilon, or one outside 0 … 255.
        """
        chosen = tuple(dict.fromkeys(epsilons))
        if not chosen:
            raise BenchError("epsilons is empty: give at least one")
        attacks = tuple(replace(attack, threats=_at(attack.threats, chosen)) for attack in self.attacks)
        headline = self.headline_epsilon if self.headline_epsilon in chosen else min(chosen)
        before = {attack.label: {threat.epsilon for threat in attack.threats} for attack in self.attacks}
        claims = tuple(itertools.chain.from_iterable(_claims_at(claim, before, chosen) for claim in self.findings))
        return replace(self, attacks=attacks, headline_epsilon=headline, findings=claims)


def _at(threats: Iterable[ThreatModel], epsilons: Iterable[int]) -> tuple[ThreatModel, ...]:
    """`threats` at each of `epsilons` in place of their own."""
    kinds = list(dict.fromkeys(replace(threat, epsilon=0) for threat in threats))
    return tuple(replace(kind, epsilon=epsilon) for epsilon in epsilons for kind in kinds)


def _claims_at(claim: Claim, before: Mapping[str, set[int]], chosen: tuple[int, ...]) -> Iterator[Claim]:
    """What becomes of a claim; `before` are the epsilons that each attack had."""
    sides = (claim.lower, claim.higher)
    if claim.at_equal:
        curves = [
            replace(side, threats=_at(side.threats, chosen) if side.epsilons == before[side.attack] else kept)
            for side, kept in zip(sides, (_kept(side, chosen) for side in sides), strict=True)
        ]
        if all(len(curve.threats) > 1 for curve in curves):
            yield replace(claim, lower=curves[0], higher=curves[1])
    elif len({*before[claim.lower.attack], *before[claim.higher.attack]}) == 1:
        for epsilon in chosen:
            lower, higher = (replace(side, threats=_at(side.threats, [epsilon])) for side in sides)
            yield replace(claim, lower=lower, higher=higher)
    elif all(_kept(side, chosen) == side.threats for side in sides):
        yield claim


def _kept(side: Contender, chosen: tuple[int, ...]) -> tuple[ThreatModel, ...]:
    return tuple(threat for threat in side.threats if threat.epsilon in chosen)
