"""Controls: what random changes of the same size do. An attack "transfers" if it leaves less than the best of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics.bootstrap import intervals
from reid_attack_bench.report.results import CONTROL_COLUMNS, CellRow, Results, Setting
from reid_attack_bench.report.rows import Row, outcome, over_seeds

FAMILY = "noise"
"""Family of the attacks that are controls: random changes, which need nothing of a model."""

NO_CONTROL = "no control was run"

BEST = "best control"
"""Name of the best control in tables and plots for people, which show it in place of all controls."""

Budget = tuple[str, str, int, int | None, str]
"""Target, data set, epsilon, pixels, perturbed images: a control is compared with attacks of the same."""

Place = tuple[Setting, str, str, str]
"""Setting, source, target, data set of a cell."""


@dataclass(frozen=True)
class OverControl:
    """A transferred attack compared with the best control of its budget.

    Attributes:
        control: the cell of the control, the one with the lowest mAP. It is picked on the queries that it is compared
            on, so it is a little lower than on others, and the comparison favours the control.
        name: the control in words.
        over: mAP of the attack minus that of the control, paired over queries, in points.
        low, high: its 95 % interval over identities.
    """

    control: CellRow
    name: str
    over: float
    low: float
    high: float

    @property
    def transfers(self) -> bool:
        """Whether the attack leaves less than the best control: the whole interval is below 0."""
        return self.high < 0.0

    @property
    def verdict(self) -> str:
        """ "transfers", "no better than random blocks of 16×8", or "worse than …"."""
        if self.transfers:
            return "transfers"
        return f"{'worse' if self.low > 0.0 else 'no better'} than {self.name}"

    def columns(self) -> Row:
        """Values of CONTROL_COLUMNS. control: label of the best control of the budget; over_control_mAP: `over`."""
        values = (
            self.control.attack, self.control.value("rank1"), self.control.value("mAP"), self.over, self.low, self.high,
            self.transfers,
        )  # fmt: skip
        return dict(zip(CONTROL_COLUMNS, values, strict=True))


@dataclass(frozen=True)
class Controls:
    """Controls of a run, and its transferred attacks compared with them.

    Attributes:
        best: budget → the control with the lowest mAP; each seed of a control counts as a control of its own.
        cells: (place, seed) → comparison, of the transferred attacks for which a control was run.
        means: place → the same for the mean over seeds.
        names: label of an attack → the control in words, of all controls.
    """

    best: Mapping[Budget, CellRow]
    cells: Mapping[tuple[Place, int], OverControl]
    means: Mapping[Place, OverControl]
    names: Mapping[str, str]

    def best_at(self, cell: CellRow) -> CellRow | None:
        """The best control of the target and budget of a cell, or None."""
        return self.best.get(budget_of(cell))

    def columns(self, cell: CellRow) -> Row:
        """Values of CONTROL_COLUMNS for a row of matrix.csv; empty for own cells and where no control was run."""
        found = self.cells.get((cell.place, cell.seed))
        return found.columns() if found else {}

    def verdict(self, cell: CellRow) -> str:
        """ "transfers" or not, of the mean over seeds; empty for a cell that is not compared."""
        found = self.means.get(cell.place)
        return found.verdict if found else NO_CONTROL if is_compared(cell) else ""


def is_control(row: CellRow) -> bool:
    """Whether a cell is of a control."""
    return row.family == FAMILY and not row.needs


def is_compared(cell: CellRow) -> bool:
    """Whether a cell is of a transferred attack that hides, which is compared with controls."""
    return cell.ok and not cell.own and not cell.impersonate and not is_control(cell)


def budget_of(cell: CellRow) -> Budget:
    """The key by which cells are matched with controls."""
    return cell.target, cell.dataset, cell.epsilon, cell.pixels, cell.perturbs


def best_controls(results: Results, measure: str = "mAP") -> dict[Budget, CellRow]:
    """The control with the lowest `measure` for each budget; ties by label and seed."""
    found: dict[Budget, CellRow] = {}
    for cell in results.cells:
        if cell.ok and is_control(cell) and not math.isnan(cell.value(measure)):
            best = found.setdefault(budget_of(cell), cell)
            if _order(cell, measure) < _order(best, measure):
                found[budget_of(cell)] = cell
    return found


def _order(cell: CellRow, measure: str) -> tuple[float, str, int, str]:
    return cell.value(measure), cell.attack, cell.seed, cell.source


def best_control(
    results: Results, target: str, dataset: str, epsilon: int, pixels: int | None = None, perturbs: str = "query"
) -> CellRow | None:
    """The control with the lowest mAP on a target at a budget, or None if none was run."""
    return best_controls(results).get((target, dataset, epsilon, pixels, perturbs))


def find(results: Results) -> Controls:
    """Controls of a run, and every transferred attack compared with the best one.

    Raises:
        BenchError: the rankings of an attack and a control differ in their queries.
    """
    best, names = best_controls(results), control_names(results)
    groups: dict[tuple[str, str], list[CellRow]] = {}
    for cell in results.cells:
        if is_compared(cell) and budget_of(cell) in best:
            groups.setdefault((cell.target, cell.dataset), []).append(cell)
    cells: dict[tuple[Place, int], OverControl] = {}
    means: dict[Place, OverControl] = {}
    for group in groups.values():
        by_place: dict[Place, list[CellRow]] = {}
        for cell in group:
            by_place.setdefault(cell.place, []).append(cell)
        several = [each for each in by_place.values() if len(each) > 1]
        compared = _compared(results, [[cell] for cell in group] + several, best, names)
        cells |= {(cell.place, cell.seed): over for cell, over in zip(group, compared, strict=False)}
        means |= {place: cells[place, each[0].seed] for place, each in by_place.items() if len(each) == 1}
        means |= {each[0].place: over for each, over in zip(several, compared[len(group) :], strict=True)}
    return Controls(best, cells, means, names)


def _compared(
    results: Results, groups: Sequence[Sequence[CellRow]], best: Mapping[Budget, CellRow], names: Mapping[str, str]
) -> list[OverControl]:
    """Each group of seeds of one target compared with its best control; all from the same resamples of identities."""
    controls = [best[budget_of(group[0])] for group in groups]
    change = np.stack([
        np.mean([_paired(results, cell, control) for cell in group], axis=0)
        for group, control in zip(groups, controls, strict=True)
    ], axis=1)  # fmt: skip
    identities = outcome(results, controls[0].rank_key).identities
    bounds = intervals(change, identities, seed=results.seed, exact=False)
    return [
        OverControl(control, names[control.attack], float(mean), float(low), float(high))
        for control, mean, (low, high) in zip(controls, np.nanmean(change, axis=0), bounds, strict=True)
    ]


def _paired(results: Results, cell: CellRow, control: CellRow) -> np.ndarray:
    """AP of an attack minus that of a control, in points; NaN for queries that are not valid."""
    ours, random = outcome(results, cell.rank_key), outcome(results, control.rank_key)
    if len(ours.valid) != len(random.valid) or (ours.valid != random.valid).any():
        raise BenchError(
            f"rankings of {cell.target} on {cell.dataset} differ in their queries: the data set changed between "
            f"{cell.attack} and {control.attack}; run the suite again"
        )
    change = ours.ap.astype(np.float64) - random.ap.astype(np.float64)
    return np.where(ours.valid.astype(bool), 100.0 * change, np.nan)


def control_names(results: Results) -> dict[str, str]:
    """Label → control in words, for every control of a run: "random blocks of 16×8"; else its label."""
    options = {entry.label: entry.options for entry in results.record.suite.attacks}
    labels = {cell.attack for cell in results.cells if is_control(cell)}
    return {label: _in_words(label, options.get(label, {})) for label in sorted(labels)}


def _in_words(label: str, options: Mapping[str, Any]) -> str:
    blocks = options.get("blocks")
    if not isinstance(blocks, Sequence) or len(blocks) != 2:
        return label
    rows, columns = blocks
    if (rows, columns) == (1, 1):
        return "a random tint"
    return f"{rows} random bands" if columns == 1 else f"random blocks of {rows}×{columns}"


def without_controls(results: Results) -> list[Setting]:
    """Settings of a run for tables and plots that list attacks, where one line, the best control, stands for all
    controls; all settings where there are only controls."""
    controls = {cell.setting for cell in results.cells if is_control(cell)}
    return [setting for setting in results.settings if setting not in controls] or results.settings


@dataclass(frozen=True)
class ControlLine:
    """A control at one epsilon, mean over targets. best: whether it has the lowest mAP of its data set and epsilon."""

    dataset: str
    epsilon: int
    name: str
    targets: int
    rank1: float
    mAP: float  # noqa: N815  as in every table
    best: bool = False


def by_epsilon(results: Results) -> list[ControlLine]:
    """Every control at every epsilon, all pixels of the query, sorted by data set, epsilon and label.

    Means over the targets on which every control of that data set and epsilon succeeded; over seeds too.
    """
    names = control_names(results)
    groups: dict[tuple[str, int], dict[str, dict[str, CellRow]]] = {}
    for cell in over_seeds(cell for cell in results.cells if is_control(cell)):
        if cell.ok and cell.pixels is None and cell.perturbs == "query":  # the same on a target from every source
            groups.setdefault((cell.dataset, cell.epsilon), {}).setdefault(cell.attack, {})[cell.target] = cell
    lines = []
    for (dataset, epsilon), controls in sorted(groups.items()):
        targets = sorted(set.intersection(*(set(each) for each in controls.values())))
        found = []
        for label in sorted(controls) if targets else ():
            rank1, mean = (
                float(np.mean([controls[label][t].value(name) for t in targets])) for name in ("rank1", "mAP")
            )
            found.append(ControlLine(dataset, epsilon, names[label], len(targets), rank1, mean))
        lowest = min(found, key=lambda line: line.mAP, default=None)
        lines += [replace(line, best=line is lowest) for line in found]
    return lines
