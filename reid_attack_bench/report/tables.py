"""Leaderboard and matrix as data frames, and CSV files that are the same bytes on every run."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics.bootstrap import interval
from reid_attack_bench.report.results import CELL_COLUMNS, CLEAN_COLUMNS, NOT_APPLICABLE, PerQuery, Results
from reid_attack_bench.store import replace_file

Row = dict[str, Any]
"""One row of a table, by column name."""

Doubts = Mapping[tuple[str, str], Sequence[str]]
"""(victim, data set) → names of its red flags, as `audit.unverified` gives them."""

PERCENT = re.compile(r"(^|_)(rank\d+|mAP|mINP|rejected)(_a|_b|_change)?(_low|_high)?$")
MEASURES = frozenset({"linf", "l2", "pixels_changed", "ssim", "ms_ssim", "lpips", "grid", "zero_gradient"})


@dataclass(frozen=True, order=True)
class Setting:
    """One attack under one threat model; pixels 0 stands for all pixels."""

    attack: str
    epsilon: int
    pixels: int = 0
    perturbs: str = "query"

    @property
    def budget(self) -> str:
        """What tells this setting from others of its attack, for names: "e8", "e8_k500", "e8_gallery"."""
        pixels = f"_k{self.pixels}" if self.pixels else ""
        return f"e{self.epsilon}{pixels}" + ("" if self.perturbs == "query" else f"_{self.perturbs}")

    @property
    def variant(self) -> str:
        """The attack in words without its epsilon: "pgd", "pgd, 500 pixels", "pgd, gallery attacked"."""
        pixels = f", {self.pixels} pixels" if self.pixels else ""
        return f"{self.attack}{pixels}" + ("" if self.perturbs == "query" else f", {self.perturbs} attacked")


@dataclass(frozen=True)
class WorstCase:
    """Per-query worst case. hit, ap: float N in [0, 1], valid queries only; missing: cells without figures."""

    hit: np.ndarray
    ap: np.ndarray
    missing: int


def is_missing(value: Any) -> bool:
    """Whether a table's value stands for "no figure"."""
    return value is None or value is pd.NA or value == "" or (isinstance(value, float) and math.isnan(value))


def is_true(value: Any) -> bool:
    """A flag of a table, also where the table was read back from CSV."""
    return not is_missing(value) and str(value).lower() in ("true", "1", "1.0")


def number(value: Any) -> float:
    """A figure as float, NaN where there is none."""
    return math.nan if is_missing(value) else float(value)


def figure(row: Row, name: str, digits: int) -> str:
    """A figure in words for a report, empty where there is none."""
    value = number(row[name])
    return "" if value != value else f"{value:.{digits}f}"


def with_interval(row: Row, name: str) -> str:
    """A percentage with its interval: "42.0 [38.1, 45.9]"; empty where there is none."""
    value, low, high = (number(row.get(f"{name}{end}")) for end in ("", "_low", "_high"))
    if value != value:
        return ""
    return f"{value:.1f}" + (f" [{low:.1f}, {high:.1f}]" if low == low and high == high else "")


def setting_of(cell: Row) -> Setting:
    """The attack and threat model of a cell."""
    pixels = 0 if is_missing(cell["pixels"]) else int(cell["pixels"])
    perturbs = "query" if is_missing(cell["perturbs"]) else str(cell["perturbs"])
    return Setting(str(cell["attack"]), int(cell["epsilon"]), pixels, perturbs)


def settings(results: Results) -> list[Setting]:
    """Every attack setting of the run, sorted; also those of which no cell succeeded."""
    named = results.cells[["attack", "epsilon", "pixels", "perturbs"]].drop_duplicates()
    return sorted({setting_of(cell) for cell in rows(named)})


def rows(frame: pd.DataFrame) -> list[Row]:
    """The rows of a table as dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def kind_of(cell: Row) -> str:
    """ "whitebox" or "query" where source and target are one model, else "transfer"."""
    if cell["source"] != cell["target"]:
        return "transfer"
    return "query" if cell["access"] == "query" else "whitebox"


def strongest(cells: Iterable[Row]) -> Row | None:
    """The successful cell with the lowest mAP (ties by source), or None."""
    found = [cell for cell in cells if cell["status"] == "ok"]
    return min(found, key=lambda cell: (number(cell["mAP"]), str(cell["source"])), default=None)


def over_seeds(cells: Iterable[Row]) -> list[Row]:
    """One row for each (setting, source, target, data set): the mean of every figure over the seeds that succeeded.

    The ends of intervals, which are over queries, are averaged too. A single row passes as it is; where all seeds
    failed, the first stands. The keys of the artefacts are those of the first seed.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for cell in cells:
        place = (setting_of(cell), str(cell["source"]), str(cell["target"]), str(cell["dataset"]))
        groups.setdefault(place, []).append(cell)
    return [_mean_row(group) for group in groups.values()]


def _mean_row(group: list[Row]) -> Row:
    done = sorted((cell for cell in group if cell["status"] == "ok"), key=lambda cell: number(cell["seed"]))
    if len(done) < 2:
        return (done or group)[0]
    averaged = [name for name in done[0] if PERCENT.search(name) or name in MEASURES]
    values = {name: [number(cell[name]) for cell in done] for name in averaged}
    return {**done[0], **{name: float(np.mean(column)) for name, column in values.items()}}


def outcome(results: Results, rank_key: Any) -> PerQuery:
    """The per-query outcome stored for a successful row.

    Raises:
        BenchError: the results hold none.
    """
    try:
        return results.per_query[rank_key]
    except KeyError:
        raise BenchError(
            f"the results hold no per-query outcome for the ranking {rank_key!r}: rank again, then write the report"
        ) from None


def worst_case(results: Results, cells: Iterable[Row]) -> WorstCase | None:
    """For each query the lowest Rank-1 hit and the lowest AP over the successful of `cells`, or None without any.

    Hit and AP are minimised separately. A query counts where it is valid in every cell.

    Raises:
        BenchError: the cells disagree about the number of queries, or an outcome is not stored.
    """
    planned = list(cells)
    done = [outcome(results, cell["rank_key"]) for cell in planned if cell["status"] == "ok"]
    if not done:
        return None
    if len({len(each.valid) for each in done}) > 1:
        raise BenchError(
            f"rankings of {planned[0]['target']} on {planned[0]['dataset']} differ in their number of queries: "
            "they come from different versions of the data set, so rank again"
        )
    valid = np.logical_and.reduce([each.valid.astype(bool) for each in done])
    if not valid.any():
        return None
    hit = np.min([each.hit[valid] for each in done], axis=0).astype(float)
    ap = np.min([each.ap[valid] for each in done], axis=0).astype(float)
    return WorstCase(hit, ap, len(planned) - len(done))


def leaderboard(results: Results, doubts: Doubts | None = None) -> pd.DataFrame:
    """Victims by robustness, one row per victim on its home data set (without a home, one per data set).

    The worst case at an epsilon is taken PER QUERY: over all successful cells with this target, data set and
    epsilon whose attack perturbs the queries (every attack, every source including the victim itself, every
    pixel budget), each query keeps its lowest Rank-1 hit and, separately, its lowest AP; the figure is their
    mean over the valid queries in percent, with a 95 % bootstrap interval over queries. It is what is left
    against an adversary that picks the best attack and source for each query, so it is at most the lowest
    figure of any single cell. Cells without figures cannot take part: `worst_e8_missing` counts them, and
    where it is not 0 the worst case is only an upper bound.

    Columns: rank, victim, defence, audit, dataset, synthetic, queries, clean_rank1 and clean_mAP with _low and _high;
    for each epsilon worst_e8_rank1 and worst_e8_mAP with _low and _high, and worst_e8_missing; for each attack
    and epsilon pgd_e8_whitebox_rank1 and _mAP (source = target; "query" instead of "whitebox" where the attack
    saw only outputs) and pgd_e8_transfer_rank1 and _mAP (the other source with the lowest mAP). A pixel budget
    shows as pgd_e8_k500_…, attacked gallery images as pgd_e8_gallery_…. An attack with several seeds shows its mean
    over them; the worst case takes every seed as an attack of its own.

    Ordered by worst-case mAP at `results.headline_epsilon`, descending, ties by clean mAP, then by name; victims that
    `doubts` names, (victim, data set) → their red flags, come below the others, with `audit` "unverified: …"; those
    without a worst case come last, without a rank. A figure that does not exist is missing (NaN).
    """
    by_place: dict[tuple[str, str], list[Row]] = {}
    for cell in rows(results.cells):
        by_place.setdefault((cell["target"], cell["dataset"]), []).append(cell)
    plan = settings(results)
    table = [_leaderboard_row(results, clean, by_place, plan) for clean in home_rows(results)]
    for row in table:
        flags = (doubts or {}).get((row["victim"], row["dataset"]), ())
        row["audit"] = "unverified: " + ", ".join(flags) if flags else ""
    headline = f"worst_e{results.headline_epsilon}_mAP"

    def order(row: Row) -> tuple[bool, bool, float, float, str, str]:
        worst, clean = number(row.get(headline)), number(row["clean_mAP"])
        nan = math.isnan(worst)
        clean_key = math.inf if math.isnan(clean) else -clean
        return nan, bool(row["audit"]), 0.0 if nan else -worst, clean_key, row["victim"], row["dataset"]

    table.sort(key=order)
    for place, row in enumerate(table, start=1):
        row["rank"] = pd.NA if math.isnan(number(row.get(headline))) else place
    frame = pd.DataFrame(table, columns=_leaderboard_columns(results, plan))
    counts = [name for name in frame.columns if name in ("rank", "queries") or name.endswith("_missing")]
    return frame.astype(dict.fromkeys(counts, "Int64"))


def home_rows(results: Results) -> list[Row]:
    """Clean rows of every victim on its home data set; all its rows where it has no home. Sorted by victim."""
    clean = sorted(rows(results.clean), key=lambda row: (row["victim"], row["dataset"]))
    with_home = {row["victim"] for row in clean if is_true(row["home"])}
    return [row for row in clean if is_true(row["home"]) or row["victim"] not in with_home]


def matrix(results: Results) -> pd.DataFrame:
    """Every cell, in the order of CELL_COLUMNS, sorted by data set, attack, threat model, source, target, seed."""

    def place(cell: Row) -> tuple[Any, ...]:
        return cell["dataset"], setting_of(cell), cell["source"], cell["target"], number(cell["seed"])

    order = sorted(rows(results.cells), key=place)
    return pd.DataFrame(order, columns=list(CELL_COLUMNS))


def clean(results: Results) -> pd.DataFrame:
    """Every clean evaluation, in the order of CLEAN_COLUMNS, sorted by data set and victim."""
    order = sorted(rows(results.clean), key=lambda row: (row["dataset"], row["victim"]))
    return pd.DataFrame(order, columns=list(CLEAN_COLUMNS))


def format_value(column: str, value: Any) -> str:
    """A value as the CSV files show it: percentages with 2 decimals, visibility measures with 4, missing empty."""
    if is_missing(value):
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if PERCENT.search(column) or column in MEASURES:
        text = f"{float(value):.{4 if column in MEASURES else 2}f}"
        return text[1:] if text.startswith("-") and not text.strip("-0.") else text  # no "-0.00"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # whole-number columns turn to float where a value is missing
    return str(value)


def write_csv(frame: pd.DataFrame, path: Path) -> Path:
    """Write a table of this module as UTF-8 CSV with "\\n" line ends, in one step; returns `path`."""
    return replace_file(path, csv_text(frame).encode())


def csv_text(frame: pd.DataFrame) -> str:
    """A table of this module as CSV; figures as `format_value` shows them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(frame.columns)
    for row in rows(frame):
        writer.writerow([format_value(column, value) for column, value in row.items()])
    return text.getvalue()


def epsilons(plan: Iterable[Setting]) -> list[int]:
    """Every epsilon at which queries are attacked: those of the worst cases, sorted."""
    return sorted({setting.epsilon for setting in plan if setting.perturbs == "query"})


def _own_kinds(results: Results) -> dict[Setting, str]:
    """For each setting what its source = target cells are called."""
    own = dict.fromkeys(settings(results), "whitebox")
    own |= {setting_of(cell): "query" for cell in rows(results.cells) if cell["access"] == "query"}
    return own


def _leaderboard_columns(results: Results, plan: list[Setting]) -> list[str]:
    def with_interval(name: str) -> list[str]:
        return [name, f"{name}_low", f"{name}_high"]

    columns = ["rank", "victim", "defence", "audit", "dataset", "synthetic", "queries"]
    columns += with_interval("clean_rank1") + with_interval("clean_mAP")
    for epsilon in epsilons(plan):
        columns += with_interval(f"worst_e{epsilon}_rank1") + with_interval(f"worst_e{epsilon}_mAP")
        columns.append(f"worst_e{epsilon}_missing")
    own = _own_kinds(results)
    for setting in plan:
        for kind in (own[setting], "transfer"):
            columns += [f"{setting.attack}_{setting.budget}_{kind}_{metric}" for metric in ("rank1", "mAP")]
    return columns


def _leaderboard_row(
    results: Results, clean: Row, by_place: dict[tuple[str, str], list[Row]], plan: list[Setting]
) -> Row:
    row: Row = {name: clean[name] for name in ("victim", "defence", "dataset", "synthetic", "queries")}
    row["synthetic"] = is_true(clean["synthetic"])
    row["queries"] = pd.NA if is_missing(clean["queries"]) else int(clean["queries"])
    for metric in ("rank1", "mAP"):
        for suffix in ("", "_low", "_high"):
            known = clean["status"] == "ok"
            row[f"clean_{metric}{suffix}"] = number(clean[f"{metric}{suffix}"]) if known else math.nan
    cells = by_place.get((clean["victim"], clean["dataset"]), [])
    for epsilon in epsilons(plan):
        at_epsilon = [c for c in cells if int(c["epsilon"]) == epsilon and setting_of(c).perturbs == "query"]
        row[f"worst_e{epsilon}_missing"] = sum(
            c["status"] != "ok" and not str(c["status"]).startswith(NOT_APPLICABLE) for c in at_epsilon
        )
        worst = worst_case(results, at_epsilon)
        if worst is None:
            continue
        for metric, values in (("rank1", worst.hit), ("mAP", worst.ap)):
            low, high = interval(values, seed=results.seed)
            name = f"worst_e{epsilon}_{metric}"
            row |= {name: 100 * float(values.mean()), f"{name}_low": 100 * low, f"{name}_high": 100 * high}
    for setting in plan:
        mine = over_seeds(c for c in cells if setting_of(c) == setting)
        for kind in ("whitebox", "query", "transfer"):
            best = strongest(c for c in mine if kind_of(c) == kind)
            if best is not None:
                for metric in ("rank1", "mAP"):
                    row[f"{setting.attack}_{setting.budget}_{kind}_{metric}"] = number(best[metric])
    return row
