"""Transferred attacks compared with controls, as tables of texts for report.md and report.html."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from reid_attack_bench.report import rows
from reid_attack_bench.report.analysis import controls
from reid_attack_bench.report.analysis.controls import Controls
from reid_attack_bench.report.results import CellRow, Results, Setting

INTRODUCTION = (
    "An attack transfers where it leaves less mAP than the best control: random changes of the same budget, for which "
    "no model is needed. Per cell the difference is paired over queries, with a 95 % bootstrap interval over "
    "identities; it transfers where the whole interval is below 0. The best control of a target is the one with the "
    "lowest mAP on the same queries, which makes the claim harder."
)

HEADS = ("attack", "ε", "pixels", "data set", "relation", "Rank-1", "mAP", "best control", "difference", "transfers in")

CONTROL_HEADS = ("data set", "ε", "control", "targets", "Rank-1", "mAP", "best")


def lines(results: Results, compared: Controls) -> list[list[str]]:
    """One line per transferred attack, budget, data set and relation, in the order of HEADS; means over cells."""
    groups: dict[tuple[str, Setting, str], list[CellRow]] = {}
    for cell in rows.over_seeds(rows.ordered_cells(results)):
        if controls.is_compared(cell):
            groups.setdefault((cell.dataset, cell.setting, cell.relation), []).append(cell)
    return [
        _line(setting, dataset, relation, cells, compared)
        for (dataset, setting, relation), cells in sorted(groups.items(), key=lambda item: item[0])
    ]


def _line(setting: Setting, dataset: str, relation: str, cells: list[CellRow], compared: Controls) -> list[str]:
    found = [compared.means[cell.place] for cell in cells if cell.place in compared.means]
    texts = [setting.attack, str(setting.epsilon), str(setting.pixels or ""), dataset, relation or "other data"]
    texts += [f"{np.mean([cell.value(name) for cell in cells]):.1f}" for name in ("rank1", "mAP")]
    if not found:
        return [*texts, controls.NO_CONTROL, "", "no claim"]
    names = " or ".join(sorted({each.name for each in found}))
    texts.append(f"{np.mean([each.control.value('mAP') for each in found]):.1f} ({names})")
    return [
        *texts,
        f"{np.mean([each.over for each in found]):+.1f}",
        f"{sum(e.transfers for e in found)} of {len(found)}",
    ]


def control_lines(results: Results) -> list[list[str]]:
    """One line per control, data set and epsilon, in the order of CONTROL_HEADS."""
    found = []
    for line in controls.by_epsilon(results):
        values = [f"{line.rank1:.1f}", f"{line.mAP:.1f}", "best" if line.best else ""]
        found.append([line.dataset, str(line.epsilon), line.name, str(line.targets), *values])
    return found


def best_control_lines(cells: list[CellRow], compared: Controls) -> Mapping[tuple[str, str, Setting], list[str]]:
    """(target, data set, budget) → values of the best control for the budgets of `cells`, where one was run."""
    found: dict[tuple[str, str, Setting], list[str]] = {}
    for cell in cells:
        control = compared.best_at(cell)
        if control is not None:
            budget = Setting("", cell.epsilon, cell.pixels or 0, cell.perturbs)
            found[cell.target, cell.dataset, budget] = [
                f"{controls.BEST} ({compared.names[control.attack]})",
                str(cell.epsilon), str(cell.pixels or ""), "", cell.target, cell.dataset,
                rows.format_number(control.values, "rank1", 1), "", rows.format_number(control.values, "mAP", 1),
                rows.format_number(control.values, "ssim", 3), rows.format_number(control.values, "grid", 3),
            ]  # fmt: skip
    return dict(sorted(found.items()))
