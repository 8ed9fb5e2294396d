"""Leaderboard, matrix and clean evaluations as data frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from reid_attack_bench.metrics.bootstrap import interval
from reid_attack_bench.report.analysis import controls
from reid_attack_bench.report.analysis.controls import Controls
from reid_attack_bench.report.analysis.worst_case import FORMS, missing, within, worst_case
from reid_attack_bench.report.results import (
    CellRow,
    CleanRow,
    Results,
    Setting,
    cell_columns,
    clean_columns,
)
from reid_attack_bench.report.rows import (
    Row,
    audit_text,
    contenders,
    epsilons,
    is_unverified,
    number,
    ordered_cells,
    ordered_clean,
    over_seeds,
    strongest,
)

FlagNames = Mapping[tuple[str, str], Sequence[str]]
"""(victim, data set) → names of its flags; see `audit.unverified` and `audit.doubtful`."""


def leaderboard(
    results: Results, red_flags: FlagNames | None = None, amber_flags: FlagNames | None = None
) -> pd.DataFrame:
    """Victims by robustness, one row per target on its training data set (if unknown, one per data set).

    The worst case at an epsilon is taken PER QUERY: over the query without attack and all successful cells with this
    target, data set and at most this epsilon whose attack perturbs the queries (every attack, every source including
    the victim itself, every pixel budget), each query keeps its lowest Rank-1 hit and, separately, its lowest AP; the
    worst case is their mean over the valid queries in percent, with a 95 % bootstrap interval over identities. This is
    the accuracy under an adversary that picks the best attack and source for each query, so it is at most the clean
    value and the lowest value of any single cell, and does not rise with epsilon. `worst_e8_missing` counts the cells
    without values; if it is not 0, the worst case is an upper bound.

    Columns: rank, victim, defence, audit, dataset, synthetic, withdrawn, queries, clean_rank1 and clean_mAP with _low
    and _high; for each epsilon worst_e8_rank1 and worst_e8_mAP with _low and _high, and worst_e8_missing; for each
    attack and epsilon pgd_e8_whitebox_rank1 and _mAP (source = target; "query" instead of "whitebox" for query-based
    attacks) and pgd_e8_transfer_rank1 and _mAP (the other source with the lowest mAP), means over seeds; every seed
    takes part in the worst case. With a pixel budget pgd_e8_k500_…, with attacked gallery images pgd_e8_gallery_…, with
    1,000 queries square_e8_q1000_…, of an attack that impersonates pgd_e8_to_random_…; its values here measure hiding,
    and it is part of the worst case, since the adversary is free to use it.

    A query that a detector refuses is a miss. If a victim of the run has a detector: worst_e8_rank1_as_clean and
    worst_e8_mAP_as_clean, where a refused query counts as its clean version; empty for the other victims.

    If the suite runs a protocol: protocol, its name where every attack of it succeeded on the victim, empty where one
    was left out or failed; and for each epsilon the same columns with protocol_ instead of worst_, the worst case over
    its attacks alone, which is comparable between runs.

    Ordered by worst-case mAP at `results.headline_epsilon` (that of the protocol, if there is one), descending, ties by
    clean mAP, then by name. Victims that did not face the whole protocol, and those with `red_flags`, whose `audit` is
    "unverified: …", come below the others; those without a worst case last, without a rank. `amber_flags` add
    "amber: …" to `audit`, no more. Missing values are NaN.
    """
    by_place: dict[tuple[str, str], list[CellRow]] = {}
    for cell in results.cells:
        by_place.setdefault((cell.target, cell.dataset), []).append(cell)
    plan = results.settings
    table = [_leaderboard_row(results, clean, by_place, plan) for clean in contenders(results)]
    for row in table:
        red, amber = ((flags or {}).get((row["victim"], row["dataset"]), ()) for flags in (red_flags, amber_flags))
        row["audit"] = audit_text(red, amber)
    _add_controls(table, results)
    protocol = results.record.suite.protocol
    headline = f"{'protocol' if protocol else 'worst'}_e{results.headline_epsilon}_mAP"
    table.sort(key=lambda row: _order(row, headline, protocol))
    for place, row in enumerate(table, start=1):
        row["rank"] = pd.NA if math.isnan(number(row.get(headline))) else place
    frame = pd.DataFrame(table, columns=_leaderboard_columns(results, plan))
    counts = [name for name in frame.columns if name in ("rank", "queries") or name.endswith("_missing")]
    return frame.astype(dict.fromkeys(counts, "Int64"))


def order_in_words(results: Results) -> str:
    """What orders the leaderboard: "worst-case mAP at ε = 8/255", with a protocol "…, over the attacks of NAME"."""
    protocol = results.record.suite.protocol
    return f"worst-case mAP at ε = {results.headline_epsilon}/255" + f", over the attacks of {protocol}" * bool(
        protocol
    )


def _order(row: Row, headline: str, protocol: str) -> tuple[bool, bool, float, float, str, str]:
    worst, clean = number(row.get(headline)), number(row["clean_mAP"])
    nan = math.isnan(worst)
    below = is_unverified(row) or row["protocol"] != protocol
    clean_key = math.inf if math.isnan(clean) else -clean
    return nan, below, 0.0 if nan else -worst, clean_key, row["victim"], row["dataset"]


def _add_controls(table: list[Row], results: Results) -> None:
    """Add best_control_e8_rank1 and _mAP to the rows of victims: the best control at each epsilon, all pixels."""
    best = controls.best_controls(results)
    for row in table:
        for epsilon in epsilons(results.settings):
            control = best.get((row["victim"], row["dataset"], epsilon, None, "query"))
            for metric in ("rank1", "mAP") if control else ():
                row[f"best_control_e{epsilon}_{metric}"] = control.value(metric) if control else math.nan


def matrix(results: Results, compared: Controls | None = None) -> pd.DataFrame:
    """Every cell, in the order of `cell_columns`, sorted by data set, attack, threat model, source, target, seed.

    `compared`: transferred attacks compared with controls, found if None.
    """
    compared = compared or controls.find(results)
    table = [cell.columns() | compared.columns(cell) for cell in ordered_cells(results)]
    return pd.DataFrame(table, columns=cell_columns())


def clean(results: Results) -> pd.DataFrame:
    """Every clean evaluation, in the order of `clean_columns`, sorted by data set and victim."""
    return pd.DataFrame([row.columns() for row in ordered_clean(results)], columns=clean_columns())


def _own_kinds(results: Results) -> dict[Setting, str]:
    """Name of the source = target cells of each setting."""
    own = dict.fromkeys(results.settings, "whitebox")
    own |= {cell.setting: "query" for cell in results.cells if cell.access == "query"}
    return own


def _leaderboard_columns(results: Results, plan: list[Setting]) -> list[str]:
    def with_interval(name: str) -> list[str]:
        return [name, f"{name}_low", f"{name}_high"]

    detects = any(row.detector for row in results.clean)
    columns = ["rank", "victim", "defence", "audit", "protocol", "dataset", "synthetic", "withdrawn", "queries"]
    columns += with_interval("clean_rank1") + with_interval("clean_mAP")
    for epsilon in epsilons(plan):
        for name in ("worst", "protocol") if epsilon in _protocol_epsilons(results) else ("worst",):
            columns += with_interval(f"{name}_e{epsilon}_rank1") + with_interval(f"{name}_e{epsilon}_mAP")
            columns += [f"{name}_e{epsilon}_{metric}_as_clean" for metric in ("rank1", "mAP") if detects]
            columns.append(f"{name}_e{epsilon}_missing")
    controlled = {cell.epsilon for cell in results.cells if controls.is_control(cell)}
    for epsilon in epsilons(plan):
        columns += [f"best_control_e{epsilon}_{metric}" for metric in ("rank1", "mAP") if epsilon in controlled]
    own = _own_kinds(results)
    for setting in plan:
        for kind in (own[setting], "transfer"):
            columns += [f"{setting.attack}_{setting.budget}_{kind}_{metric}" for metric in ("rank1", "mAP")]
    return columns


def _protocol_epsilons(results: Results) -> set[int]:
    return {threat.epsilon for entry in results.record.suite.attacks if entry.protocol for threat in entry.threats}


def _protocol_faced(results: Results, cells: Sequence[CellRow], *, defended: bool) -> str:
    """Name of the suite's protocol if every attack of it that applies to the target of `cells` succeeded."""
    planned = {(cell.attack, cell.epsilon, cell.query_budget) for cell in cells}
    failed = {(cell.attack, cell.epsilon, cell.query_budget) for cell in cells if missing([cell])}
    needed = {
        (entry.label, threat.epsilon, threat.queries)
        for entry in results.record.suite.attacks
        if entry.protocol and (defended or not entry.defended_only)
        for threat in entry.threats
    }
    return results.record.suite.protocol if needed <= planned - failed else ""


def _leaderboard_row(
    results: Results, clean: CleanRow, by_place: dict[tuple[str, str], list[CellRow]], plan: list[Setting]
) -> Row:
    row: Row = {name: getattr(clean, name) for name in ("victim", "defence", "dataset", "synthetic", "withdrawn")}
    row["queries"] = pd.NA if clean.queries is None else clean.queries
    for metric in ("rank1", "mAP"):
        for suffix in ("", "_low", "_high"):
            row[f"clean_{metric}{suffix}"] = clean.value(f"{metric}{suffix}")
    cells = by_place.get((clean.victim, clean.dataset), [])
    row["protocol"] = _protocol_faced(results, cells, defended=bool(clean.defence))
    for epsilon in epsilons(plan):
        candidates = within(cells, epsilon)
        row |= _worst_values(results, f"worst_e{epsilon}", candidates, clean)
        if epsilon in _protocol_epsilons(results):
            fixed = [cell for cell in candidates if cell.protocol]
            row |= _worst_values(results, f"protocol_e{epsilon}", fixed, clean)
    for setting in plan:
        mine = over_seeds(c for c in cells if c.setting == setting)
        for kind in ("whitebox", "query", "transfer"):
            best = strongest(c for c in mine if c.kind == kind)
            if best is not None:
                for metric in ("rank1", "mAP"):
                    row[f"{setting.attack}_{setting.budget}_{kind}_{metric}"] = best.value(metric)
    return row


def _worst_values(results: Results, name: str, cells: list[CellRow], clean: CleanRow) -> Row:
    """Columns of the worst case over `cells`, by column name; only the number of missing cells if there is none."""
    row: Row = {f"{name}_missing": missing(cells)}
    worst = worst_case(results, cells, clean)
    if worst is None:
        return row
    for suffix, fields in FORMS.items():
        if suffix and not clean.detector:
            continue
        for metric, field in zip(("rank1", "mAP"), fields, strict=True):
            row[f"{name}_{metric}{suffix}"] = 100 * float(getattr(worst, field).mean())
    for metric, values in (("rank1", worst.hit), ("mAP", worst.ap)):
        low, high = interval(values, worst.identities, seed=results.seed)
        row |= {f"{name}_{metric}_low": 100 * low, f"{name}_{metric}_high": 100 * high}
    return row
