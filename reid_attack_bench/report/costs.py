"""Costs of the attacks of a run: passes, queries and seconds. Seconds differ from run to run, passes do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any

import pandas as pd

from reid_attack_bench.report.record import CellRecord, RunRecord, StepRecord, threat_columns
from reid_attack_bench.report.results import CostRow, Setting

FactsOf = Callable[[str, str], "Mapping[str, Any] | None"]
"""Kind and key of a step → what it stored of itself; None where it is not stored."""

_STORED = {
    "forward_passes": "forward_passes",
    "backward_passes": "backward_passes",
    "queries_per_image": "queries",
}
"""Measure → its name in what a craft step stores."""

_NOTHING = dict.fromkeys(_STORED, 0.0)
"""Cost of an attack that does not use its source."""


def of_crafting(cell: CellRecord, facts_of: FactsOf) -> dict[str, float]:
    """Mean cost of one image by the measures of group "cost"; empty where it was not counted."""
    facts = facts_of("craft", cell.craft_key)
    if facts is None:
        return {}
    if not cell.needs:
        return dict(_NOTHING)
    return {name: float(facts[stored]) for name, stored in _STORED.items() if stored in facts}


def of_run(record: RunRecord, facts_of: FactsOf) -> list[CostRow]:
    """One row for each attack, threat model, seed, source and data set of which images are stored; in no order."""
    steps = {step.key: step for step in record.steps}
    found: dict[tuple[Any, ...], CostRow] = {}
    for cell in record.cells:
        seed = record.suite.seed if cell.seed is None else cell.seed
        place = (Setting.of(cell.attack, cell.threat), cell.source, cell.dataset, seed)
        if place not in found and facts_of("craft", cell.craft_key) is not None:
            found[place] = _row(cell, seed, steps, facts_of)
    return list(found.values())


def table(rows: Iterable[CostRow]) -> pd.DataFrame:
    """costs.csv, sorted by data set, attack, threat model, source and seed."""
    ordered = sorted(rows, key=lambda row: (row.dataset, row.setting, row.source, row.seed))
    return pd.DataFrame([vars(row) for row in ordered], columns=[field.name for field in fields(CostRow)])


def _row(cell: CellRecord, seed: int, steps: Mapping[str, StepRecord], facts_of: FactsOf) -> CostRow:
    craft = steps.get(cell.craft_key)
    images = _images(cell, facts_of)
    fit = steps.get(craft.inputs.get("fit", "")) if craft else None
    fitted = (facts_of("fit", fit.key) if fit else None) or {}
    per_image = of_crafting(cell, facts_of)
    seconds = craft.seconds if craft else None
    return CostRow(
        attack=cell.attack,
        **threat_columns(cell.threat) | {name: per_image.get(name) for name in _STORED},
        source=cell.source,
        dataset=cell.dataset,
        seed=seed,
        images=images,
        seconds_per_image=round(seconds / images, 6) if seconds is not None and images else None,
        fit_forward_passes=fitted.get("forward_passes"),
        fit_backward_passes=fitted.get("backward_passes"),
        fit_seconds=fit.seconds if fit else None,
        craft_key=cell.craft_key,
    )


def _images(cell: CellRecord, facts_of: FactsOf) -> int | None:
    """Number of images that the attack perturbed."""
    counts = facts_of("data", cell.data_key)
    if counts is None:
        return None
    return sum(int(counts[side]["images"]) for side in cell.threat.sides)
