"""Labels and text formatting shared by tables, plots and pages."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from reid_attack_bench.report.record import models
from reid_attack_bench.report.results import CellRow, CleanRow, Results, Setting
from reid_attack_bench.report.rows import is_missing

METRICS = {"rank1": "Rank-1", "mAP": "mAP"}

SOURCE_AXIS = "source model (attack crafted on)"

TARGET_AXIS = "target model (evaluated)"

CLEAN_ROW = "clean (no attack)"


def file_name(*parts: str) -> str:
    """A portable file name from labels; if characters were replaced, a short hash keeps names unique."""
    joined = "_".join(parts)
    plain = re.sub(r"[^A-Za-z0-9._@+=-]+", "-", joined)
    if plain == joined:
        return plain
    return f"{plain}-{hashlib.sha256(joined.encode()).hexdigest()[:6]}"


def is_synthetic(results: Results, dataset: str | None = None) -> bool:
    """Whether any row (of one data set) is from synthetic data."""
    return any(row.synthetic for row in _rows(results, dataset))


def synthetic_banner(results: Results, shown: Iterable[str] | None = None) -> str:
    """The banner over the data sets `shown`, by default all of the run; empty without synthetic ones.

    "SYNTHETIC DATA", with the names if only some are synthetic.
    """
    every = sorted({*(datasets(results) if shown is None else shown)})
    rendered = [name for name in every if is_synthetic(results, name)]
    if not rendered:
        return ""
    return "SYNTHETIC DATA" + ("" if rendered == every else f": {', '.join(rendered)}")


def datasets(results: Results) -> list[str]:
    """Data sets of the run, sorted."""
    return sorted({row.dataset for row in _rows(results)})


def query_count(results: Results, dataset: str) -> int | None:
    """Number of queries of a data set, None if unknown."""
    return max((row.queries for row in _rows(results, dataset) if row.queries is not None), default=None)


def _rows(results: Results, dataset: str | None = None) -> list[CellRow | CleanRow]:
    """Clean rows and cells of one data set, or of all."""
    every: list[CellRow | CleanRow] = [*results.clean, *results.cells]
    return [row for row in every if dataset in (None, row.dataset)]


def names_contain_dataset(results: Results, board: Iterable[Mapping[str, Any]]) -> bool:
    """Whether every victim name of a leaderboard contains its data set."""
    known = models(results.record.suite)
    return all(row["victim"] in known and known[row["victim"]].trained_on == row["dataset"] for row in board)


def describe(results: Results, dataset: str) -> str:
    """Description of a data set for titles: "plaza, 320 queries, synthetic data"."""
    queries = query_count(results, dataset)
    parts = [dataset] + ([] if queries is None else [f"{queries:,} queries"])
    return ", ".join(parts + (["synthetic data"] if is_synthetic(results, dataset) else []))


def run_line(results: Results, setting: Setting | None = None, dataset: str | None = None) -> str:
    """Subtitle of a figure of one data set, or of all: suite, seed, number of seeds per attack, `synthetic_banner`."""
    seeds: dict[Setting, set[int]] = {}
    for cell in results.cells:
        if setting in (None, cell.setting):
            seeds.setdefault(cell.setting, set()).add(cell.seed)
    counts = {len(each) for each in seeds.values()}
    line = f"suite {results.suite}, seed {results.seed}"
    if max(counts, default=1) > 1:
        line += f", means over {'up to ' if len(counts) > 1 else ''}{max(counts)} seeds of an attack"
    banner = synthetic_banner(results, None if dataset is None else [dataset])
    return f"{line} · {banner}" if banner else line


def first_epsilon(results: Results) -> int:
    """The headline epsilon, or the nearest that the run has: the one budget of every overview."""
    return min({setting.epsilon for setting in results.settings}, key=lambda e: (abs(e - results.headline_epsilon), e))


def elsewhere(results: Results, epsilon: int) -> str:
    """Attacks that were not run at `epsilon`, in words with their budgets; empty if there are none."""
    budgets: dict[str, list[int]] = {}
    for setting in results.settings:
        budgets.setdefault(setting.variant, []).append(setting.epsilon)
    others = {name: found for name, found in budgets.items() if epsilon not in found}
    listed = (f"{name} ({', '.join(map(str, found))})" for name, found in others.items())
    return f"only at another ε: {', '.join(listed)}" if others else ""


def markdown_text(value: object) -> str:
    """Text escaped for Markdown, on one line; empty for a missing value."""
    line = "" if is_missing(value) else " ".join(str(value).split())
    for special in "\\|*_`[#":
        line = line.replace(special, f"\\{special}")
    return line.replace("<", "&lt;")


def markdown_row(texts: Iterable[str]) -> str:
    """A row of a Markdown table; `texts` are escaped already."""
    return "| " + " | ".join(texts) + " |"
