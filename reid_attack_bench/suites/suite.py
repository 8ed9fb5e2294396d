"""Suites: the data sets, victims and attacks of one matrix."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reid_attack_bench.contracts import DRAW_BATCH, ThreatModel
from reid_attack_bench.errors import BenchError
from reid_attack_bench.mistakes import shown
from reid_attack_bench.text import no_label

RELATIONS = ("white-box", "cross-dataset", "cross-model", "cross-both")
"""Relation between target and source of a cell, on the data set that the target was trained on: the same model; the
same architecture trained on another data set; another architecture trained on the same; both."""

PRECISIONS = ("float32", "bfloat16")

OTHERS = "others"
"""In AttackEntry.sources: for each target all sources but itself."""

CONTROL = "control"
"""In Contender.attack: the best control of the budget of the other side."""

EOT_SAMPLES = 8
"""Number of draws of a randomised victim averaged by `adaptive: true`."""

_WHOLE = {"extra": "forbid"}  # for pydantic: a record with an unknown field is refused


@dataclass(frozen=True)
class VictimEntry:
    """One victim of a suite.

    Attributes:
        label: its name in tables.
        use: registered victim or FILE.py:NAME.
        options: settings of the victim.
        train_on: training data sets, one model each; empty for a trained victim.
        expected_rank1: clean Rank-1 in % below which a trained model counts as failed, on its own data set.
        roles: "source" (crafted on, against every target), "white-box" (crafted on, against itself only), "target".
        defends: label of the victim that this one, a contracts.Defence, is applied to; one for each of its models.
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
        options: settings of the attack.
        threats: threat models; all are run.
        seeds: the attack is fitted and crafted once with each; empty for the seed of the suite. Data and victims keep
            the seed of the suite.
        adaptive: number of draws of a randomised source to average if the attack is adaptive (see `adaptive`); 0 if
            it is not.
        defended_only: craft on defended sources only, for adaptive attacks, which are the plain ones elsewhere.
        protocol: name of the protocol that the attack belongs to; empty for an attack of the suite's own.
        relations: restrict its cells to these, of those of the suite, see RELATIONS; empty for all.
        sources: empty to craft it on each source of the suite alone; labels of sources, MODEL or MODEL@DATASET, to
            craft it on all of these at once; OTHERS to craft it for each target on all sources but that target at once.
    """

    __pydantic_config__ = _WHOLE
    label: str
    use: str
    options: Mapping[str, Any]
    threats: tuple[ThreatModel, ...]
    seeds: tuple[int, ...] = ()
    adaptive: int = 0
    defended_only: bool = False
    protocol: str = ""
    sources: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contender:
    """One side of a claim: an attack of the suite under one of its threat models, or under several as a curve.

    attack CONTROL: the best control, random changes of the same budget; `threats` are then those of the other side.
    """

    __pydantic_config__ = _WHOLE
    attack: str
    threats: tuple[ThreatModel, ...]

    @property
    def epsilons(self) -> set[int]:
        return {threat.epsilon for threat in self.threats}


@dataclass(frozen=True)
class Claim:
    """A claim about two attacks, to be confirmed or refuted by a run; see report.analysis.findings.

    Attributes:
        claim: the claim in words.
        lower, higher: sides of which `measure` is claimed to be lower and higher.
        measure: a column of matrix.csv.
        relation: cells over which the measure is averaged, see RELATIONS.
        at_equal: compare at equal values of this measure, interpolated on the curves over threat models; empty to
            compare directly.
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
    """A suite: a whole matrix of attacks, sources, targets and data sets.

    Attributes:
        name, description: shown in reports.
        seed: seed of all random numbers of the run.
        image_size: (height, width) in pixels at which images are stored, attacked and evaluated.
        batch_size: images per forward pass of attacks. Affects results only by rounding; passes of victims that are
            declared as randomised do not follow it. It is halved if the GPU runs out of memory.
        headline_epsilon: the leaderboard is sorted by the worst case at this epsilon.
        datasets: name → options.
        victims, attacks: entries that are combined into cells.
        relations: restrict the cells to these, see RELATIONS; empty for all.
        findings: claims that the report evaluates.
        precision: precision of victims while they are attacked and evaluated, not while they are trained: "float32",
            or "bfloat16" for torch's autocast, meant for GPUs.
        compile: apply torch.compile to victims on a GPU. Like `precision`, it changes results slightly.
        protocol: name of the fixed set of attacks by which victims are ranked, see `suites.protocols`; empty for none.
            Its attacks are among `attacks`.
        draw_batch: images that an attack is handed at once where that decides its random numbers, or those of its
            source; see `Attack.draws_each_image`.
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
    protocol: str = ""
    draw_batch: int = DRAW_BATCH

    def with_seed(self, seed: int) -> Suite:
        return replace(self, seed=seed)

    def with_victim(self, victim: VictimEntry) -> Suite:
        if mistake := no_label(victim.label):
            raise BenchError(f"the label {shown(victim.label)} of the victim {mistake}: choose another name")
        if victim.label in {v.label for v in self.victims}:
            raise BenchError(f"suite {self.name} already has a victim '{victim.label}': choose another name")
        return replace(self, victims=(*self.victims, victim))

    def with_epsilons(self, epsilons: Iterable[int]) -> Suite:
        """The suite with every attack at exactly these epsilons (steps of 1/255).

        Pixel budgets, perturbed images and access are kept; a protocol is not, because its epsilons are fixed. The
        headline epsilon is kept if it is among the new ones, otherwise it is the smallest. Claims are changed if that
        keeps their meaning:

        - two attacks with a single, equal epsilon: one claim per new epsilon;
        - a curve (`at_equal`) over all epsilons of its attack: the curve over the new ones;
        - any other claim is kept if its threat models still exist, and dropped otherwise.

        Raises:
            BenchError: no epsilon, or one outside 0 … 255.
        """
        chosen = tuple(dict.fromkeys(epsilons))
        if not chosen:
            raise BenchError("epsilons is empty: give at least one")
        attacks = tuple(replace(each, threats=_at(each.threats, chosen), protocol="") for each in self.attacks)
        headline = self.headline_epsilon if self.headline_epsilon in chosen else min(chosen)
        before = {attack.label: {threat.epsilon for threat in attack.threats} for attack in self.attacks}
        claims = tuple(itertools.chain.from_iterable(_claims_at(claim, before, chosen) for claim in self.findings))
        return replace(self, attacks=attacks, headline_epsilon=headline, findings=claims, protocol="")


def _at(threats: Iterable[ThreatModel], epsilons: Iterable[int]) -> tuple[ThreatModel, ...]:
    """`threats` with each of `epsilons`."""
    kinds = list(dict.fromkeys(replace(threat, epsilon=0) for threat in threats))
    return tuple(replace(kind, epsilon=epsilon) for epsilon in epsilons for kind in kinds)


def _claims_at(claim: Claim, before: Mapping[str, set[int]], chosen: tuple[int, ...]) -> Iterator[Claim]:
    """The claims that replace a claim; `before`: previous epsilons of each attack."""
    sides = (claim.lower, claim.higher)
    if claim.at_equal:
        curves = [
            replace(side, threats=_at(side.threats, chosen) if side.epsilons == before[side.attack] else kept)
            for side, kept in zip(sides, (_kept(side, chosen) for side in sides), strict=True)
        ]
        if all(len(curve.threats) > 1 for curve in curves):
            yield replace(claim, lower=curves[0], higher=curves[1])
    elif len(set().union(*(before[side.attack] for side in sides if side.attack != CONTROL))) == 1:
        for epsilon in chosen:
            lower, higher = (replace(side, threats=_at(side.threats, [epsilon])) for side in sides)
            yield replace(claim, lower=lower, higher=higher)
    elif all(_kept(side, chosen) == side.threats for side in sides):
        yield claim


def _kept(side: Contender, chosen: tuple[int, ...]) -> tuple[ThreatModel, ...]:
    return tuple(threat for threat in side.threats if threat.epsilon in chosen)
