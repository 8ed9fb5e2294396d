"""Labels and captions that tables, plots and pages share."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from reid_attack_bench.report.record import models
from reid_attack_bench.report.results import CellRow, CleanRow, Results, Setting

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
    return any(row.synthetic for row in _rows(results, dataset))


def datasets(results: Results) -> list[str]:
    """Every data set of the run, sorted."""
    return sorted({row.dataset for row in _rows(results)})


def query_count(results: Results, dataset: str) -> int | None:
    """Number of queries of a data set, None where no row says."""
    return max((row.queries for row in _rows(results, dataset) if row.queries is not None), default=None)


def _rows(results: Results, dataset: str | None = None) -> list[CellRow | CleanRow]:
    """Clean rows and cells, of one data set or of all."""
    every: list[CellRow | CleanRow] = [*results.clean, *results.cells]
    return [row for row in every if dataset in (None, row.dataset)]


def names_say_data(results: Results, board: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the name of every victim of a leaderboard already says its data set."""
    known = models(results.record.suite)
    return all(row["victim"] in known and known[row["victim"]].trained_on == row["dataset"] for row in board)


def describe(results: Results, dataset: str) -> str:
    """A data set in words, for panel titles: "plaza, 320 queries, synthetic data"."""
    queries = query_count(results, dataset)
    parts = [dataset] + ([] if queries is None else [f"{queries:,} queries"])
    return ", ".join(parts + (["synthetic data"] if is_synthetic(results, dataset) else []))


def run_line(results: Results, setting: Setting | None = None) -> str:
    """What every picture says about the run: suite, seed, how many seeds (of one attack), "synthetic"."""
    seeds: dict[Setting, set[int]] = {}
    for cell in results.cells:
        if setting in (None, cell.setting):
            seeds.setdefault(cell.setting, set()).add(cell.seed)
    counts = {len(each) for each in seeds.values()}
    line = f"suite {results.suite}, seed {results.seed}"
    if max(counts, default=1) > 1:
        line += f", means over {'up to ' if len(counts) > 1 else ''}{max(counts)} seeds of an attack"
    return line + (" · SYNTHETIC DATA" if is_synthetic(results) else "")
