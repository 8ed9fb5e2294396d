"""Mean drop rates (mDR) as a table of texts for report.md and report.html."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import pandas as pd

from reid_attack_bench.report import rows
from reid_attack_bench.report.results import Setting

INTRODUCTION = (
    "Mean drop rate over targets in percent of the clean value, means over seeds; all: every target, transfer: those "
    "that the attack was not crafted on. Two definitions are published and must not be mixed: the ratio of means "
    "(MTGA, AP-Attack) and the mean of ratios (MUAP). It depends on the targets of the run."
)

HEADS = (
    "attack", "ε", "pixels", "source", "data set", "targets", "mAP, ratio of means", "mAP, mean of ratios",
    "Rank-1, ratio of means", "Rank-1, mean of ratios",
)  # fmt: skip


def lines(table: pd.DataFrame, controls: Container[str] = ()) -> list[list[str]]:
    """Two lines per row of `analysis.mean_drop.table`, in the order of HEADS; none without several targets.

    `controls`: labels of attacks that are left out.
    """
    several = [row for row in rows.rows(table) if row["targets"] > 1 and row["attack"] not in controls]
    return [line for row in several for line in _lines(row)]


def _lines(row: Mapping[str, Any]) -> list[list[str]]:
    pixels, queries, top = (0 if rows.is_missing(row[n]) else int(row[n]) for n in ("pixels", "query_budget", "top"))
    setting = Setting(row["attack"], row["epsilon"], pixels, row["perturbs"], queries, top, row["impersonate"])
    start = [setting.variant, str(row["epsilon"]), str(pixels or ""), row["source"], row["dataset"]]
    found = []
    for words, prefix in (("all", ""), ("transfer", "transfer_")):
        count = int(row[f"{prefix}targets"])
        names = [f"{prefix}{form}_{m}" for m in ("mAP", "rank1") for form in ("ratio_of_means", "mean_of_ratios")]
        if count and (prefix == "" or count < row["targets"]):
            found.append([*start, f"{words}: {count}", *(rows.format_number(row, name, 1) for name in names)])
    if found and row["transfer_targets"] == row["targets"]:
        found[0][5] = f"transfer: {row['targets']}"
    return found
