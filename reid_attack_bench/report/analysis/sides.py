"""Sides of a claim: the cells of an attack, or of the best control, that are compared."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from reid_attack_bench.report.analysis import controls
from reid_attack_bench.report.results import CellRow, Setting
from reid_attack_bench.suites.suite import CONTROL, Claim, Contender

Place = tuple[str, str, str]
"""Source, target, data set."""


@dataclass(frozen=True)
class Side:
    """One side of a claim. cells: seed → place → the cell of each threat model; control: whether it is the control."""

    name: str
    attack: str
    cells: dict[int, dict[Place, list[CellRow]]]
    control: bool = False

    @property
    def places(self) -> set[Place]:
        """Places where every seed has values."""
        return set.intersection(*map(set, self.cells.values())) if self.cells else set()

    @functools.cached_property
    def fixed(self) -> bool:
        """Whether no seed changes it: it is the control, or several seeds give the same values."""
        first, *others = self.cells.values() if self.cells else [{}]
        same = all(
            one.values == other.values
            for place in self.places
            for each in others
            for one, other in zip(first[place], each[place], strict=True)
        )
        return self.control or (bool(others) and same)

    @property
    def alone(self) -> bool:
        """Whether it is compared with every seed of the other side: no seed changes it, or there is only one."""
        return self.fixed or len(self.cells) == 1

    def at(self, seed: int) -> dict[Place, list[CellRow]]:
        """Cells that are compared with those of the other side at `seed`."""
        return self.cells[min(self.cells) if self.alone else seed]


def common_seeds(lower: Side, higher: Side) -> list[int]:
    """Seeds that are compared: those of both sides, or of the side that is not alone."""
    if not (lower.cells and higher.cells):
        return []
    spread = [side for side in (lower, higher) if not side.alone]
    return sorted(set.intersection(*(set(side.cells) for side in spread))) if spread else [0]


def of_attack(claim: Claim, contender: Contender, cells: Sequence[CellRow]) -> Side:
    """One side of a claim; places that lack a threat model are left out."""
    settings = [Setting.of(contender.attack, threat) for threat in contender.threats]
    found: dict[int, dict[Place, dict[Setting, CellRow]]] = {}
    for cell in cells:
        setting = cell.setting
        if setting not in settings or cell.relation != claim.relation or not cell.ok:
            continue
        if not any(math.isnan(cell.value(name)) for name in (claim.at_equal, claim.measure) if name):
            place = (cell.source, cell.target, cell.dataset)
            found.setdefault(cell.seed, {}).setdefault(place, {})[setting] = cell
    whole = {
        seed: {place: [at[each] for each in settings] for place, at in places.items() if len(at) == len(settings)}
        for seed, places in found.items()
    }
    return Side(_named(settings), contender.attack, {seed: places for seed, places in whole.items() if places})


def of_control(contender: Contender, other: Side, best: dict[controls.Budget, CellRow], names: dict[str, str]) -> Side:
    """The best control at the places of the other side, of the budget of its cells."""
    found: dict[Place, list[CellRow]] = {}
    for places in other.cells.values():
        for place, cells in places.items():
            control = [best[budget] for budget in map(controls.budget_of, cells) if budget in best]
            if len(control) == len(cells):
                found[place] = control
    used = sorted({names[cell.attack] for cells in found.values() for cell in cells})
    epsilons = "/".join(str(threat.epsilon) for threat in contender.threats)
    words = f" ({' or '.join(used)})" if used else ""
    return Side(f"{controls.BEST}{words}, ε = {epsilons}", CONTROL, {0: found} if found else {}, control=True)


def _named(settings: Sequence[Setting]) -> str:
    return f"{settings[0].variant}, ε = {'/'.join(str(each.epsilon) for each in settings)}"
