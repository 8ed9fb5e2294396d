"""A suite: which data sets, victims and attacks make one matrix. Read from YAML and checked in full."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.errors import BenchError

RELATIONS = ("white-box", "cross-dataset", "cross-model", "cross-both")
"""How target and source of a cell stand to each other, on the data set that the target was trained on: the same model;
the same architecture trained on another data set; another architecture trained on the same; both."""

PRECISIONS = ("float32", "bfloat16")

EOT_SAMPLES = 8
"""Draws of a randomised victim that `adaptive: true` averages."""


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
        adaptive: the source is attacked as one that knows its defence would (see `adaptive`); the number is how many
            draws of a randomised source are averaged. 0 attacks it as it is.
    """

    label: str
    use: str
    options: Mapping[str, Any]
    threats: tuple[ThreatModel, ...]
    seeds: tuple[int, ...] = ()
    adaptive: int = 0


@dataclass(frozen=True)
class Contender:
    """One side of a finding: an attack of the suite under one of its threat models, or under several as a curve."""

    attack: str
    threats: tuple[ThreatModel, ...]


@dataclass(frozen=True)
class Finding:
    """A claim about two attacks that a run confirms or does not; see report.findings.

    Attributes:
        claim: in words.
        lower, higher: whose `measure` is claimed to be the lower one, and the higher one.
        measure: a column of matrix.csv.
        relation: over which cells, see RELATIONS; the mean over all of them counts.
        at_equal: compare where this measure is the same, read off the curves over threat models; empty to compare the
            two as they are.
    """

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
        image_size: (height, width) in pixels at which images are stored, attacked and judged.
        batch_size: images per forward pass; does not change results beyond rounding, but for a victim that draws once
            for a batch. What does not fit into a GPU's memory is halved.
        headline_epsilon: the leaderboard is ordered by the worst case at this epsilon.
        datasets: name → options.
        victims, attacks: what is crossed.
        relations: only these cells, see RELATIONS; empty for all.
        findings: claims that the report judges.
        precision: of victims when they are attacked and judged, not when they are trained: "float32", or "bfloat16"
            for torch's autocast, meant for GPUs.
        compile: have torch.compile make them faster on a GPU, where it can. Both change results a little.
    """

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
    findings: tuple[Finding, ...] = ()
    precision: str = "float32"
    compile: bool = False

    def with_seed(self, seed: int) -> Suite:
        return replace(self, seed=seed)

    def with_victim(self, victim: VictimEntry) -> Suite:
        if victim.label in {v.label for v in self.victims}:
            raise BenchError(f"suite {self.name} already has a victim '{victim.label}': give yours another name")
        return replace(self, victims=(*self.victims, victim))
