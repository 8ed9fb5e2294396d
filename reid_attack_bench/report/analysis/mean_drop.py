"""Mean drop rate (mDR) of an attack over several targets, in both published definitions.

Ratio of means: (mean clean − mean attacked) / mean clean over the targets, as MTGA (Bian et al., arXiv 2409.04208) and
AP-Attack (ICCV 2025) report it. Mean of ratios: the mean over the targets of (clean − attacked) / clean, as the
released code of MUAP (Ding et al., TIFS 2021) does. They differ where the clean values of the targets do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from reid_attack_bench.report.analysis.worst_case import missing
from reid_attack_bench.report.results import CellRow, Results, Setting
from reid_attack_bench.report.rows import Row, ordered_cells, over_seeds

_METRICS = ("mAP", "rank1")

_VALUES = tuple(f"{form}_{metric}" for form in ("ratio_of_means", "mean_of_ratios") for metric in _METRICS)

COLUMNS = (
    "attack", "epsilon", "pixels", "perturbs", "sees", "query_budget", "top", "impersonate", "source", "dataset",
    "targets", "missing", *_VALUES,
    "transfer_targets", *(f"transfer_{name}" for name in _VALUES),
)  # fmt: skip
"""Columns of mdr.csv, one row per attack, threat model, source and data set; means over seeds.

targets: number of targets with values; missing: number of those without; transfer_…: only the targets that the attack
was not crafted on. In %; a mean of ratios is empty if a target has a clean value of 0.
"""


def table(results: Results) -> pd.DataFrame:
    """mDR of every attack, threat model, source and data set, in the order of the matrix; see COLUMNS."""
    groups: dict[tuple[Setting, str, str, str], list[CellRow]] = {}
    for cell in over_seeds(ordered_cells(results)):
        groups.setdefault((cell.setting, cell.sees, _source(cell), cell.dataset), []).append(cell)
    rows = [_row(source, cells) for (_, _, source, _), cells in groups.items()]
    return pd.DataFrame([row for row in rows if row["targets"]], columns=list(COLUMNS))


def _source(cell: CellRow) -> str:
    """The source in the table: the attacks on all but their target are one attack."""
    return "all but the target" if cell.source == f"all but {cell.target}" else cell.source


def _row(source: str, cells: Sequence[CellRow]) -> Row:
    done = [cell for cell in cells if cell.ok]
    row: Row = {name: value for name, value in cells[0].columns().items() if name in COLUMNS[:10]} | {"source": source}
    row |= {"targets": len(done), "missing": missing(cells)}
    transferred = [cell for cell in done if not cell.own]
    row |= _values(done) | {"transfer_targets": len(transferred)}
    return row | {f"transfer_{name}": value for name, value in _values(transferred).items()}


def _values(cells: Sequence[CellRow]) -> Row:
    found: Row = {}
    for metric in _METRICS if cells else ():
        clean, attacked = (np.array([cell.value(name) for cell in cells]) for name in (f"clean_{metric}", metric))
        of_means, ratios = math.nan, math.nan
        if clean.mean() > 0:
            of_means = 100.0 * float((clean.mean() - attacked.mean()) / clean.mean())
        if (clean > 0).all():
            ratios = 100.0 * float(((clean - attacked) / clean).mean())
        found |= {f"ratio_of_means_{metric}": of_means, f"mean_of_ratios_{metric}": ratios}
    return found
