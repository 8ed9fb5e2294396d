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
    "victim", "twin", "dataset", "synthetic", "withdrawn", "clean_mAP", "twin_clean_mAP", "epsilon", "plain_mAP",
    "adaptive_mAP", "worst_mAP", "worst_mAP_as_clean", "worst_missing", "twin_worst_mAP", "twin_worst_missing",
    "gain_mAP", "gain_mAP_low", "gain_mAP_high", "rejected",
)  # fmt: skip
"""Columns of defences.csv.

twin: the undefended baseline; plain_mAP: lowest mAP at this epsilon under attacks that do not know the defence, crafted
on the victim or on the baseline; adaptive_mAP: lowest mAP at this epsilon under adaptive attacks; worst_mAP: worst case
at this epsilon, as in leaderboard.leaderboard; worst_mAP_as_clean: the same where a query that the detector rejects
counts as its clean version, empty without a detector; worst_missing: number of its cells without values; twin_*: the
same for the baseline; gain_mAP: worst_mAP minus twin_worst_mAP, paired over queries, in points, with a 95 % bootstrap
interval over identities; rejected: largest share of adversarial queries that a detector rejected, in %.
"""


def robustness_gains(results: Results) -> pd.DataFrame:
    """One row per defended victim on its training data set, at the headline epsilon; empty if there are none."""
    known = models(results.record.suite)
    clean = {(row.victim, row.dataset): row for row in training_data_rows(results)}
    cells = worst_case.within(results.cells, results.headline_epsilon)
    table = []
    for (victim, dataset), row in clean.items():
        undefended = known[victim].undefended if victim in known else None
        baseline = clean.get((undefended.name, dataset)) if undefended else None
        if baseline is not None:
            table.append(_row(results, row, baseline, cells))
    return pd.DataFrame(table, columns=list(COLUMNS))


WORDS = (
    "victim", "undefended baseline", "clean", "plain", "adaptive", "worst", "worst, rejected = clean",
    "baseline worst", "gain", "rejected",
)  # fmt: skip


def in_words(row: Row) -> list[str]:
    """A row of `robustness_gains` as texts of a report table, in the order of WORDS.

    "≤" stands before a value that cells without values may only lower, "≥" before one that they may only raise.
    """
    own, other = (bool(row[f"{side}worst_missing"]) for side in ("", "twin_"))
    bounds = {"worst_mAP": own, "worst_mAP_as_clean": own, "twin_worst_mAP": other}
    names = ("clean_mAP", "plain_mAP", "adaptive_mAP", "worst_mAP", "worst_mAP_as_clean", "twin_worst_mAP")
    values = [_bounded(rows.format_number(row, name, 1), below=bounds.get(name, False)) for name in names]
    gain = _bounded(rows.with_interval(row, "gain_mAP"), below=own, above=other)
    return [row["victim"], row["twin"], *values, gain, rows.format_number(row, "rejected", 1)]


def _bounded(text: str, *, below: bool, above: bool = False) -> str:
    """`text` marked if the true value may lie below or above it."""
    sign = {(True, False): "≤ ", (False, True): "≥ ", (True, True): "≈ "}.get((below, above), "")
    return sign + text if text else ""


def _row(results: Results, victim: CleanRow, baseline: CleanRow, cells: list[CellRow]) -> Row:
    own, other = (
        [cell for cell in cells if (cell.target, cell.dataset) == (each.victim, each.dataset)]
        for each in (victim, baseline)
    )
    done = [cell for cell in own if cell.ok and cell.epsilon == results.headline_epsilon]
    row: Row = dict.fromkeys(COLUMNS, math.nan) | {
        "victim": victim.victim,
        "twin": baseline.victim,
        "dataset": victim.dataset,
        "synthetic": victim.synthetic,
        "withdrawn": victim.withdrawn,
        "clean_mAP": victim.value("mAP"),
        "twin_clean_mAP": baseline.value("mAP"),
        "epsilon": results.headline_epsilon,
        "plain_mAP": _lowest([cell for cell in done if not cell.adaptive]),
        "adaptive_mAP": _lowest([cell for cell in done if cell.adaptive]),
        "worst_missing": worst_case.missing(own),
        "twin_worst_missing": worst_case.missing(other),
    }
    row["rejected"] = max((cell.values["rejected"] for cell in done if "rejected" in cell.values), default=math.nan)
    worst, baseline_worst = worst_case.worst_case(results, own, victim), worst_case.worst_case(results, other, baseline)
    if worst is None or baseline_worst is None or not np.array_equal(worst.identities, baseline_worst.identities):
        return row
    gain = 100.0 * (worst.ap - baseline_worst.ap)
    low, high = interval(gain, worst.identities, seed=results.seed, exact=False)
    row |= {"worst_mAP": 100.0 * float(worst.ap.mean()), "twin_worst_mAP": 100.0 * float(baseline_worst.ap.mean())}
    if victim.detector:
        row["worst_mAP_as_clean"] = 100.0 * float(worst.ap_as_clean.mean())
    return row | {"gain_mAP": float(np.mean(gain)), "gain_mAP_low": low, "gain_mAP_high": high}


def _lowest(cells: list[CellRow]) -> float:
    return min((cell.value("mAP") for cell in cells), default=math.nan)
