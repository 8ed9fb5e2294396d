"""Labels and text formatting shared by tables, plots and pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reid_attack_bench.report.record import models
from reid_attack_bench.report.results import CellRow, CleanRow, Results, Setting
from reid_attack_bench.report.rows import is_missing
from reid_attack_bench.text import one_line

METRICS = {"rank1": "Rank-1", "mAP": "mAP"}

SOURCE_AXIS = "source model (attack crafted on)"

TARGET_AXIS = "target model (evaluated)"

CLEAN_ROW = "clean (no attack)"


MARKS = {
    "synthetic": "Its results compare models and attacks with each other; they do not predict performance on "
    "photographs of people.",
    "withdrawn": "Its authors have withdrawn the images; the results are only for comparison with published ones.",
}
"""Mark of a data set → what a report says about results on it. Marks are fields of rows."""


def marks(results: Results, dataset: str) -> list[str]:
    """Marks of a data set, in the order of MARKS."""
    return [mark for mark in MARKS if any(getattr(row, mark) for row in _rows(results, dataset))]


def with_marks(row: Mapping[str, Any]) -> str:
    """The data set of a row of a table with its marks: "plaza (synthetic)"."""
    found = ", ".join(mark for mark in MARKS if row[mark])
    return str(row["dataset"]) + (f" ({found})" if found else "")


def banners(results: Results, shown: Iterable[str] | None = None) -> dict[str, str]:
    """Mark → heading over the data sets `shown`, by default all of the run; without marks that none has.

    "synthetic" → "Synthetic data", with the names if only some are synthetic.
    """
    every = sorted({*(datasets(results) if shown is None else shown)})
    found = {mark: [name for name in every if mark in marks(results, name)] for mark in MARKS}
    return {
        mark: f"{mark.capitalize()} data" + ("" if names == every else f": {', '.join(names)}")
        for mark, names in found.items()
        if names
    }


def banner(results: Results, shown: Iterable[str] | None = None) -> str:
    """`banners` in one line, for titles: "SYNTHETIC DATA: plaza · WITHDRAWN DATA: dukemtmc-reid"; empty for none."""
    headings = (text.partition(": ") for text in banners(results, shown).values())
    return " · ".join(f"{heading.upper()}{colon}{names}" for heading, colon, names in headings)


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
    return ", ".join(parts + [f"{mark} data" for mark in marks(results, dataset)])


def run_line(results: Results, setting: Setting | None = None, dataset: str | None = None) -> str:
    """Subtitle of a figure of one data set, or of all: suite, seed, number of seeds per attack, `banner`."""
    seeds: dict[Setting, set[int]] = {}
    for cell in results.cells:
        if setting in (None, cell.setting):
            seeds.setdefault(cell.setting, set()).add(cell.seed)
    counts = {len(each) for each in seeds.values()}
    line = f"suite {results.suite}, seed {results.seed}"
    if max(counts, default=1) > 1:
        line += f", means over {'up to ' if len(counts) > 1 else ''}{max(counts)} seeds of an attack"
    return " · ".join(filter(None, (line, banner(results, None if dataset is None else [dataset]))))


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
    line = "" if is_missing(value) else one_line(value)
    for special in "\\|*_`[#":
        line = line.replace(special, f"\\{special}")
    return line.replace("<", "&lt;")


def markdown_row(texts: Iterable[str]) -> str:
    """A row of a Markdown table; `texts` are escaped already."""
    return "| " + " | ".join(texts) + " |"
