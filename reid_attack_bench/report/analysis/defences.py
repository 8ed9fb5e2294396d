"""Robustness gain of each defence over its undefended baseline."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from reid_attack_bench.metrics.bootstrap import interval
from reid_attack_bench.report import rows
from reid_attack_bench.report.analysis import worst_case
from reid_attack_bench.report.record import models
from reid_attack_bench.report.results import CellRow, CleanRow, Results
from reid_attack_bench.report.rows import Row, training_data_rows

COLUMNS = (
    "victim", "twin", "dataset", "clean_mAP", "twin_clean_mAP", "epsilon", "plain_mAP", "adaptive_mAP", "worst_mAP",
    "twin_worst_mAP", "gain_mAP", "gain_mAP_low", "gain_mAP_high", "rejected",
)  # fmt: skip
"""Columns of defences.csv.

twin: the undefended baseline; plain_mAP: lowest mAP under attacks that do not know the defence, crafted on the victim
or on the baseline; adaptive_mAP: lowest mAP under adaptive attacks; worst_mAP: mean over queries of the lowest AP over
all of these attacks, see leaderboard.leaderboard; twin_*: the same for the baseline; gain_mAP: worst_mAP minus
twin_worst_mAP, paired over queries, in points, with a 95 % bootstrap interval; rejected: largest share of adversarial
queries that a detector rejected, in %.
"""


def robustness_gains(results: Results) -> pd.DataFrame:
    """One row per defended victim on its training data set, at the headline epsilon; empty if there are none."""
    known = models(results.record.suite)
    clean = {(row.victim, row.dataset): row for row in training_data_rows(results)}
    cells = [cell for cell in results.cells if _is_compared(results, cell)]
    table = []
    for (victim, dataset), row in clean.items():
        undefended = known[victim].undefended if victim in known else None
        baseline = clean.get((undefended.name, dataset)) if undefended else None
        if baseline is not None:
            table.append(_row(results, row, baseline, cells))
    return pd.DataFrame(table, columns=list(COLUMNS))


WORDS = ("victim", "undefended baseline", "clean", "plain", "adaptive", "worst", "baseline worst", "gain", "rejected")


def in_words(row: Row) -> list[str]:
    """A row of `robustness_gains` as texts of a report table, in the order of WORDS."""
    values = [
        rows.format_number(row, f"{name}_mAP", 1) for name in ("clean", "plain", "adaptive", "worst", "twin_worst")
    ]
    gain, rejected = rows.with_interval(row, "gain_mAP"), rows.format_number(row, "rejected", 1)
    return [row["victim"], row["twin"], *values, gain, rejected]


def _row(results: Results, victim: CleanRow, baseline: CleanRow, cells: list[CellRow]) -> Row:
    own, other = (
        [cell for cell in cells if (cell.target, cell.dataset) == (each.victim, each.dataset)]
        for each in (victim, baseline)
    )
    worst, baseline_worst = worst_case.worst_case(results, own), worst_case.worst_case(results, other)
    row: Row = dict.fromkeys(COLUMNS, math.nan) | {
        "victim": victim.victim,
        "twin": baseline.victim,
        "dataset": victim.dataset,
        "clean_mAP": victim.value("mAP"),
        "twin_clean_mAP": baseline.value("mAP"),
        "epsilon": results.headline_epsilon,
        "plain_mAP": _lowest([cell for cell in own if not cell.adaptive]),
        "adaptive_mAP": _lowest([cell for cell in own if cell.adaptive]),
    }
    rejected = [cell.values["rejected"] for cell in own if "rejected" in cell.values]
    row["rejected"] = max(rejected, default=math.nan)
    if worst is not None and baseline_worst is not None and len(worst.ap) == len(baseline_worst.ap):
        gain = 100.0 * (worst.ap - baseline_worst.ap)
        low, high = interval(gain, seed=results.seed, exact=False)
        row |= {"worst_mAP": 100.0 * float(worst.ap.mean()), "twin_worst_mAP": 100.0 * float(baseline_worst.ap.mean())}
        row |= {"gain_mAP": float(np.mean(gain)), "gain_mAP_low": low, "gain_mAP_high": high}
    return row


def _is_compared(results: Results, cell: CellRow) -> bool:
    """Whether a cell succeeded with attacked queries at the headline epsilon."""
    return cell.ok and cell.epsilon == results.headline_epsilon and cell.perturbs == "query"


def _lowest(cells: list[CellRow]) -> float:
    return min((cell.value("mAP") for cell in cells), default=math.nan)
