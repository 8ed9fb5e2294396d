"""The plan: steps in order, clean rows, and cells of the matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.steps.step import Step
from reid_attack_bench.suites.suite import Suite


@dataclass(frozen=True)
class CleanRow:
    """One victim on one data set without an attack, and the steps that say how it does."""

    victim: str
    dataset: str
    synthetic: bool
    home: bool
    victim_key: str
    features_key: str
    rank_key: str


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix, and the steps that fill it.

    `relation` is one of suite.RELATIONS, or empty where the target is judged on data it was not trained on.
    `impossible` says why it can have no steps. `family`, `steps` and `adaptive` are what the audit asks of the attack:
    what it climbs (attacks with the same are compared), in how many steps, and AttackEntry.adaptive.
    """

    attack: str
    threat: ThreatModel
    seed: int
    access: str
    needs: tuple[str, ...]
    source: str
    target: str
    relation: str
    dataset: str
    synthetic: bool
    clean_rank_key: str
    data_key: str
    family: str = ""
    steps: int = 0
    adaptive: int = 0
    craft_key: str = ""
    measure_key: str = ""
    features_key: str = ""
    rank_key: str = ""
    impossible: str = ""


@dataclass(frozen=True)
class PlanSource:
    """Arguments of make_plan besides the suite, with which another process makes the same plan."""

    data_root: Path | None
    only: Mapping[str, Sequence[str]]
    remember: Path | None


@dataclass(frozen=True)
class Plan:
    """Steps in an order that satisfies their inputs, and what they are for.

    `source` is None if the plan cannot be made from text, e.g. of a victim that exists only in memory. `wanted` are
    the keys of what somebody is after who wants no report.
    """

    suite: Suite
    steps: Mapping[str, Step]
    clean: tuple[CleanRow, ...]
    cells: tuple[Cell, ...]
    wanted: tuple[str, ...] = ()
    source: PlanSource | None = None

    @property
    def goals(self) -> list[str]:
        """Keys that the report reads, or that are wanted; everything else exists to make these."""
        if self.wanted:
            return list(self.wanted)
        wanted = [row.rank_key for row in self.clean]
        for cell in self.cells:
            wanted += [key for key in (cell.craft_key, cell.measure_key, cell.rank_key) if key]
        return list(dict.fromkeys(wanted))
