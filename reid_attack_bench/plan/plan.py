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
    """One victim on one data set without an attack, and the keys of its steps.

    Attributes:
        victim: label of the model, MODEL or MODEL@DATASET.
        home: `dataset` is the training data set of the victim.
        check_key: of the checks of the victim, on its training data set; on all its rows.
        withdrawn: its authors have withdrawn `dataset`.
        figure_keys: of the comparisons of the victim, and of one that it defends, with published values; on all its
            rows.
    """

    victim: str
    dataset: str
    synthetic: bool
    home: bool
    victim_key: str
    features_key: str
    rank_key: str
    check_key: str
    withdrawn: bool = False
    figure_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix, and the keys of its steps.

    Attributes:
        attack: label of the attack in the suite.
        access: "white-box" or "query" where the target is the source, or one of several, by what the attack sees; else
            "transfer".
        source, target: labels of the models. Several sources are "A+B", or "all but T" for all but the target T.
        relation: one of suite.RELATIONS, of several sources the closest; empty if the target was trained on another
            data set of the suite.
        family: as in contracts.Attack.
        steps: gradient steps per image; 1 for an attack that learns.
        adaptive: as in AttackEntry.
        protocol: as in AttackEntry.
        fitted_on: data set that a learned attack was fitted on; empty for others.
        impossible: reason why the cell has no steps; empty for a cell that has them.
        withdrawn: its authors have withdrawn `dataset`.
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
    protocol: str = ""
    fitted_on: str = ""
    craft_key: str = ""
    measure_key: str = ""
    features_key: str = ""
    rank_key: str = ""
    impossible: str = ""
    withdrawn: bool = False


@dataclass(frozen=True)
class PlanSource:
    """Arguments of make_plan besides the suite, with which another process makes the same plan."""

    data_root: Path | None
    only: Mapping[str, Sequence[str]]
    remember: Path | None


@dataclass(frozen=True)
class Plan:
    """Steps of a run, clean rows and cells.

    Attributes:
        steps: key → step, in an order that satisfies their inputs.
        wanted: keys to make instead of those that the report reads; empty for a report.
        source: None if the plan cannot be made from text, e.g. with a victim that exists only in memory.
        notes: lines that every report of the run must show.
    """

    suite: Suite
    steps: Mapping[str, Step]
    clean: tuple[CleanRow, ...]
    cells: tuple[Cell, ...]
    wanted: tuple[str, ...] = ()
    source: PlanSource | None = None
    notes: tuple[str, ...] = ()

    @property
    def goals(self) -> list[str]:
        """Keys to make: those in `wanted`, or those that the report reads. All other steps only serve them."""
        if self.wanted:
            return list(self.wanted)
        wanted = [key for row in self.clean for key in (row.rank_key, *row.figure_keys, row.check_key)]
        for cell in self.cells:
            wanted += [key for key in (cell.craft_key, cell.measure_key, cell.rank_key) if key]
        return list(dict.fromkeys(wanted))
