"""Labels and captions that tables, plots and pages share."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from reid_attack_bench.report import rows
from reid_attack_bench.report.results import Results
from reid_attack_bench.report.rows import Setting

METRICS = {"rank1": "Rank-1", "mAP": "mAP"}

SOURCE_AXIS = "source model (attack crafted on)"

TARGET_AXIS = "target model (evaluated)"

CLEAN_ROW = "clean (no attack)"


def file_name(*parts: str) -> str:
    """A portable file name out of labels; labels with other characters get a short hash so that names stay unique."""
    joined = "_".join(parts)
    plain = re.sub(r"[^A-Za-z0-9._@+=-]+", "-", joined)
    if plain == joined:
        return plain
    return f"{plain}-{hashlib.sha256(joined.encode()).hexdigest()[:6]}"


def is_synthetic(results: Results, dataset: str | None = None) -> bool:
    """Whether any figure (of one data set) comes from synthetic data."""
    return any(rows.is_true(value) for value in _column(results, "synthetic", dataset))


def datasets(results: Results) -> list[str]:
    """Every data set of the run, sorted."""
    return sorted(set(_column(results, "dataset", None)))


def query_count(results: Results, dataset: str) -> int | None:
    """Number of queries of a data set, None where no row says."""
    counts = {int(value) for value in _column(results, "queries", dataset) if not rows.is_missing(value)}
    return max(counts, default=None)


def _column(results: Results, name: str, dataset: str | None) -> list[Any]:
    """A column of the clean table and of the cells, one after the other, for one data set or all."""
    values: list[Any] = []
    for frame in (results.clean, results.cells):
        values += frame[name].tolist() if dataset is None else frame.loc[frame["dataset"] == dataset, name].tolist()
    return values


def describe(results: Results, dataset: str) -> str:
    """A data set in words, for panel titles: "plaza, 320 queries, synthetic data"."""
    queries = query_count(results, dataset)
    parts = [dataset] + ([] if queries is None else [f"{queries:,} queries"])
    return ", ".join(parts + (["synthetic data"] if is_synthetic(results, dataset) else []))


def run_line(results: Results, setting: Setting | None = None) -> str:
    """What every picture says about the run: suite, seed, how many seeds (of one attack), "synthetic"."""
    named = rows.rows(results.cells[["attack", "epsilon", "pixels", "perturbs", "seed"]].drop_duplicates())
    seeds: dict[Setting, set[int]] = {}
    for cell in named:
        if not rows.is_missing(cell["seed"]) and setting in (None, rows.setting_of(cell)):
            seeds.setdefault(rows.setting_of(cell), set()).add(int(cell["seed"]))
    counts = {len(each) for each in seeds.values()}
    line = f"suite {results.suite}, seed {results.seed}"
    if max(counts, default=1) > 1:
        line += f", means over {'up to ' if len(counts) > 1 else ''}{max(counts)} seeds of an attack"
    return line + (" · SYNTHETIC DATA" if is_synthetic(results) else "")
