"""Results of attacks that impersonate, for report.md and report.html."""

from __future__ import annotations

from reid_attack_bench.metrics import catalogue
from reid_attack_bench.report import rows
from reid_attack_bench.report.results import CellRow, Results

INTRODUCTION = (
    "In percent, means over seeds. Each query is to retrieve a target identity in place of its own: one drawn at "
    "random, or the nearest by the clean embeddings of the source (hardest). mAP is that of its own identity under "
    "attack."
)


def heads() -> list[str]:
    """Column heads of `lines`."""
    measures = [measure.label for measure in catalogue.of_group("targeted")]
    return ["attack", "ε", "source", "target model", "data set", "clean targeted Rank-1", *measures, "mAP"]


def lines(results: Results) -> list[list[str]]:
    """One line of text for each cell whose attack impersonates and succeeded; empty if the run has none."""
    return [_line(cell) for cell in targeted_cells(results)]


def targeted_cells(results: Results) -> list[CellRow]:
    cells = rows.over_seeds(rows.ordered_cells(results))
    return [cell for cell in cells if cell.impersonate and cell.ok]


def _line(cell: CellRow) -> list[str]:
    setting = cell.setting
    texts = [setting.variant, str(setting.epsilon), cell.source, cell.target, cell.dataset]
    texts.append(rows.format_number(cell.values, "clean_target_rank1", 1))
    for measure in catalogue.of_group("targeted"):
        interval = rows.with_interval(cell.values, measure.name)
        texts.append(interval if measure.interval else rows.format_number(cell.values, measure.name, 1))
    return [*texts, rows.with_interval(cell.values, "mAP")]
