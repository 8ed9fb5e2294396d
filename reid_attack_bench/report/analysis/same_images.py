"""Defended victims and their undefended baselines on the same adversarial images: does a defence damp an attack?

Images crafted on any source are evaluated on both. An attack is damped where it takes less from the defended victim
than from its baseline, and amplified where it takes more: the drop from the clean query of each, compared query by
query. What re-ranking does to an attack is seen here alone, since no attack is crafted on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reid_attack_bench.report import rows
from reid_attack_bench.report.analysis import significance
from reid_attack_bench.report.record import models
from reid_attack_bench.report.results import CellRow, CleanRow, PerQuery, Results, Setting
from reid_attack_bench.report.rows import Row, training_data_rows

_FIELDS = {"rank1": "hit", "mAP": "ap"}
"""Measure → field of PerQuery."""

COLUMNS = (
    "defence", "attack", "epsilon", "pixels", "perturbs", "relation", "cells", "identities",
    *(f"{side}{measure}" for measure in _FIELDS for side in ("clean_", "", "twin_clean_", "twin_")),
    *(f"more_drop_{measure}{end}" for measure in _FIELDS for end in ("", "_low", "_high")),
)  # fmt: skip
"""Columns of same_images.csv.

defence: its name in the suite (`use`); relation: of the source and the baseline; cells: pairs of cells, over which all
values are means; clean_*, *: of the defended victims without and with the attack, in %; twin_*: of their baselines;
more_drop_*: drop of the defended victims minus that of their baselines on the same images, in points, positive where
the attack is amplified, with a 95 % t-interval over `identities`.
"""


@dataclass(frozen=True)
class _Pair:
    """A defended victim and its baseline under the same images: clean and attacked outcome of each."""

    dataset: str
    own: tuple[PerQuery, PerQuery]
    twin: tuple[PerQuery, PerQuery]


def same_images(results: Results) -> pd.DataFrame:
    """One row per defence, attack, threat model and relation of the source to the baseline; empty without pairs."""
    uses = {entry.label: entry.use for entry in results.record.suite.victims}
    known = models(results.record.suite)
    clean = {(row.victim, row.dataset): row for row in training_data_rows(results) if row.ok}
    cells = {_images(cell): cell for cell in results.cells if cell.ok and cell.rank_key in results.per_query}
    found: dict[tuple[str, Setting, str], list[_Pair]] = {}
    for cell in rows.ordered_cells(results):
        model = known.get(cell.target)
        if model is None or model.undefended is None or _images(cell) not in cells:
            continue
        twin = cells.get(_images(cell, model.undefended.name))
        pair = _pair(results, clean, cell, twin) if twin and twin.craft_key == cell.craft_key else None
        if twin and pair:
            found.setdefault((uses[model.label], cell.setting, twin.relation), []).append(pair)
    return pd.DataFrame([_row(*key, pairs) for key, pairs in found.items()], columns=list(COLUMNS))


def on_targets_alone(results: Results, table: pd.DataFrame) -> list[Row]:
    """White-box rows of the defences on which no attack was crafted, for the report: what else is there to see?"""
    sources = {entry.use for entry in results.record.suite.victims if set(entry.roles) & {"source", "white-box"}}
    return [row for row in rows.rows(table) if row["defence"] not in sources and row["relation"] == "white-box"]


WORDS = ("defence", "attack", "ε", "clean", "attacked", "baseline clean", "baseline attacked", "drop more by")


def in_words(row: Row) -> list[str]:
    """A row of `same_images` as texts of a report table, in the order of WORDS; mAP."""
    pixels = "" if rows.is_missing(row["pixels"]) else f", {int(row['pixels']):,} pixels"
    names = ("clean_mAP", "mAP", "twin_clean_mAP", "twin_mAP")
    values = [rows.format_number(row, name, 1) for name in names]
    return [row["defence"], f"{row['attack']}{pixels}", str(row["epsilon"]), *values,
            rows.with_interval(row, "more_drop_mAP")]  # fmt: skip


def _images(cell: CellRow, target: str = "") -> tuple[Setting, str, str, str, int]:
    """The images that a cell evaluates, and its target or another one."""
    return cell.setting, cell.source, target or cell.target, cell.dataset, cell.seed


def _pair(results: Results, clean: Mapping[tuple[str, str], CleanRow], cell: CellRow, twin: CellRow) -> _Pair | None:
    """None where one of the two has no clean row, or other queries."""
    before = [clean.get((each.target, each.dataset)) for each in (cell, twin)]
    if before[0] is None or before[1] is None:
        return None
    own, other = (
        (rows.outcome(results, row.rank_key), rows.outcome(results, each.rank_key))
        for row, each in zip((before[0], before[1]), (cell, twin), strict=True)
    )
    same = np.array_equal(own[0].valid, other[0].valid)
    return _Pair(cell.dataset, own, other) if same else None


def _row(defence: str, setting: Setting, relation: str, pairs: Sequence[_Pair]) -> Row:
    row: Row = {
        "defence": defence,
        "attack": setting.attack,
        "epsilon": setting.epsilon,
        "pixels": setting.pixels or None,
        "perturbs": setting.perturbs,
        "relation": relation,
        "cells": len(pairs),
    }
    for measure, field in _FIELDS.items():
        more, people, means = [], [], []
        for pair in pairs:
            valid = pair.own[0].valid.astype(bool)
            values = [100.0 * getattr(each, field).astype(float)[valid] for each in (*pair.own, *pair.twin)]
            means.append([float(each.mean()) for each in values])
            more.append((values[0] - values[1]) - (values[2] - values[3]))
            people.append(np.array([f"{pair.dataset} {each}" for each in pair.own[0].identities[valid]]))
        estimate = significance.over_clusters(more, people)
        names = (f"clean_{measure}", measure, f"twin_clean_{measure}", f"twin_{measure}")
        row |= dict(zip(names, np.mean(means, axis=0).tolist(), strict=True))
        row |= {f"more_drop_{measure}": estimate.mean, f"more_drop_{measure}_low": estimate.low}
        row |= {f"more_drop_{measure}_high": estimate.high, "identities": estimate.count}
    return row
