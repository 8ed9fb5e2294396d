"""Paired comparison of two runs on the same cells and queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics.bootstrap import interval
from reid_attack_bench.report import rows as result_rows
from reid_attack_bench.report.analysis.worst_case import WorstCase, within, worst_case
from reid_attack_bench.report.labels import banners, markdown_row, markdown_text
from reid_attack_bench.report.results import CellRow, CleanRow, PerQuery, Results, Setting
from reid_attack_bench.report.rows import Row

COLUMNS = (
    "attack", "epsilon", "pixels", "perturbs", "source", "target", "dataset", "seed", "query_budget", "top",
    "impersonate", "queries",
    "rank1_a", "rank1_b", "rank1_change", "rank1_change_low", "rank1_change_high",
    "mAP_a", "mAP_b", "mAP_change", "mAP_change_low", "mAP_change_high", "changed",
)  # fmt: skip
"""Columns of a comparison. Changes are B − A in points, with 95 % bootstrap intervals over identities.

attack: CLEAN without attack, WORST for the worst case of each run over the cells that succeeded in both, see
worst_case.worst_case; changed: whether the interval of the mAP excludes 0.
"""

CLEAN, WORST = "clean", "worst case"

_PLACE = COLUMNS[:11]

Place = tuple[Any, ...]
"""Values of `_PLACE`: the key by which cells of two runs are matched."""


def compare(a: Results, b: Results) -> pd.DataFrame:
    """Clean evaluations, worst cases and cells that succeeded in both runs, each by decreasing change of mAP.

    Data sets whose images differ between the runs are left out, see `other_data`.

    Raises:
        BenchError: the runs have no cell in common, or the queries of a cell differ.
    """
    different = other_data(a, b)
    first, second = dict(_done(a)), dict(_done(b))
    met = [place for place in first if place in second]
    shared = [place for place in met if place[6] not in different]
    if met and not shared:
        raise BenchError(
            f"the images of {', '.join(different)} differ between the runs (seed, size or count); "
            "compare runs on the same data"
        )
    if not shared:
        raise BenchError(
            "the two runs have no cell in common; attack, budget, source, target, data set and seed must be equal"
        )
    pairs = [(place, first[place], second[place]) for place in shared]
    outcomes = [
        (place, result_rows.outcome(a, one.rank_key), result_rows.outcome(b, other.rank_key))
        for place, one, other in pairs
    ]
    rows = [_row(*each, a.seed) for each in (*outcomes, *_worst(a, b, pairs)) if each[1].valid.any()]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    kind = table["attack"].map({CLEAN: 0, WORST: 1}).fillna(2)
    order = pd.DataFrame({"kind": kind, "change": -table["mAP_change"].abs()}).sort_values(
        ["kind", "change"], kind="stable"
    )
    return table.loc[order.index].reset_index(drop=True)


def other_data(a: Results, b: Results) -> list[str]:
    """Data sets of both runs whose recorded image digests differ."""
    return sorted(name for name in a.data.keys() & b.data.keys() if a.data[name] != b.data[name])


def only_in(a: Results, b: Results) -> tuple[Counter[str], Counter[str]]:
    """Cells and clean evaluations that succeeded in A only and in B only, counted by the reason in the other run."""
    different = other_data(a, b)
    sides = []
    for one, other in ((a, b), (b, a)):
        done, there = dict(_done(one)), dict(_planned(other))
        missing = (place for place in done if place[6] not in different and there.get(place) != "ok")
        sides.append(Counter(there.get(place, "not part of it") for place in missing))
    return sides[0], sides[1]


def name_of(row: Row) -> str:
    """Name of a row: "pgd, ε = 8/255, from a@plaza → b@plaza, on plaza"."""
    where = f"{row['target']}, on {row['dataset']}"
    if row["attack"] == CLEAN:
        return f"clean → {where}"
    if row["attack"] == WORST:
        return f"worst case, ε = {row['epsilon']}/255 → {where}"
    setting = Setting(
        row["attack"],
        row["epsilon"],
        0 if result_rows.is_missing(row["pixels"]) else int(row["pixels"]),
        row["perturbs"],
        row["query_budget"],
        row["top"],
        row["impersonate"],
    )
    seed = f", seed {row['seed']}" if row["seed"] else ""
    return f"{setting.variant}, ε = {setting.epsilon}/255{seed}, from {row['source']} → {where}"


def change_of(row: Row, metric: str) -> str:
    """The change of "rank1" or "mAP" in points with its interval: "+1.2 [0.3, 2.2]"."""
    change, low, high = (float(row[f"{metric}_change{end}"]) for end in ("", "_low", "_high"))
    return f"{change:+.1f} [{low:.1f}, {high:.1f}]"


def summary(a: Results, b: Results, table: pd.DataFrame, names: tuple[str, str] = ("A", "B")) -> list[str]:
    """Summary lines: changed values, data sets left out, and cells of one run only."""
    lines = [
        f"{int(table['changed'].sum())} of {len(table)} values changed: the 95 % interval of the paired difference in "
        "mAP excludes 0 (about 1 in 20 does so by chance)"
    ]
    lines += [f"{name} left out: its images differ between the runs" for name in other_data(a, b)]
    for name, other, counts in zip(names, names[::-1], only_in(a, b), strict=True):
        if counts:
            reasons = "; ".join(f"{count} × {reason}" for reason, count in counts.most_common())
            lines.append(f"{sum(counts.values())} only in {name}; in {other}: {reasons}")
    return lines


def to_markdown(a: Results, b: Results, table: pd.DataFrame, names: tuple[str, str] = ("A", "B")) -> str:
    """The comparison as Markdown: the runs, the summary and all values."""
    lines = [f"# Changes from {markdown_text(names[0])} to {markdown_text(names[1])}", ""]
    for heading in dict.fromkeys(heading for each in (a, b) for heading in banners(each).values()):
        lines += [f"> **{markdown_text(heading)}.**", ""]
    for label, name, each in zip("AB", names, (a, b), strict=True):
        command = each.record.command
        words = f"- {label}: {markdown_text(name)}, suite {markdown_text(each.suite)}, seed {each.seed}"
        lines.append(words + (f", `{command}`" if command else ""))
    lines += ["", *(f"- {markdown_text(line)}" for line in summary(a, b, table, names)), ""]
    lines.append(
        "In percent; changes are B − A in points on the same queries, with 95 % bootstrap intervals over identities. "
        "Worst case at ε: over the cells of at most ε that succeeded in both runs, and the query without attack."
    )
    header = ["", "queries", "Rank-1 A", "Rank-1 B", "change", "mAP A", "mAP B", "change", "changed"]
    kinds = table["attack"].where(table["attack"].isin([CLEAN, WORST]), "cells")
    for kind, title in ((CLEAN, "Without attack"), (WORST, "Worst case"), ("cells", "Cells")):
        rows = result_rows.rows(table[kinds == kind])
        if rows:
            lines += ["", f"## {title}", "", markdown_row(header), "| --- |" + " --: |" * 7 + " --- |"]
        for row in rows:
            texts = [name_of(row), str(row["queries"])]
            for metric in ("rank1", "mAP"):
                texts += [f"{row[f'{metric}_{side}']:.1f}" for side in "ab"] + [change_of(row, metric)]
            lines.append(markdown_row(map(markdown_text, [*texts, "yes" if row["changed"] else ""])))
    return "\n".join(lines) + "\n"


def _planned(results: Results) -> Iterator[tuple[Place, str]]:
    """Places of a run, each with its status."""
    for row in results.clean:
        yield (CLEAN, 0, 0, "", "", row.victim, row.dataset, 0, 0, 0, ""), row.status
    for cell in results.cells:
        yield _place(cell), cell.status


def _place(cell: CellRow) -> Place:
    setting = cell.setting
    budget = (setting.attack, setting.epsilon, setting.pixels, setting.perturbs)
    place = (cell.source, cell.target, cell.dataset, cell.seed)
    return *budget, *place, setting.queries, setting.top, setting.impersonate


def _done(results: Results) -> Iterator[tuple[Place, CellRow | CleanRow]]:
    both: list[CleanRow | CellRow] = [*results.clean, *results.cells]
    for (place, status), row in zip(_planned(results), both, strict=True):
        if status == "ok":
            yield place, row


def _worst(
    a: Results, b: Results, pairs: Sequence[tuple[Place, CellRow | CleanRow, CellRow | CleanRow]]
) -> list[tuple[Place, PerQuery, PerQuery]]:
    """Worst case of each target at each epsilon in both runs, over the cells that both have."""
    clean: dict[Place, tuple[CleanRow, CleanRow]] = {}
    attacked: dict[Place, list[tuple[CellRow, CellRow]]] = {}
    for place, one, other in pairs:
        if isinstance(one, CellRow) and isinstance(other, CellRow):
            attacked.setdefault(place[5:7], []).append((one, other))
        elif isinstance(one, CleanRow) and isinstance(other, CleanRow):
            clean[place[5:7]] = one, other
    found = []
    for where in attacked.keys() & clean.keys():
        first, second = zip(*attacked[where], strict=True)
        for epsilon in result_rows.epsilons(cell.setting for cell in first):
            before = worst_case(a, within(first, epsilon), clean[where][0])
            after = worst_case(b, within(second, epsilon), clean[where][1])
            if before is not None and after is not None:
                place = (WORST, epsilon, 0, "query", "", *where, 0, 0, 0, "")
                found.append((place, _as_outcome(before), _as_outcome(after)))
    return sorted(found, key=lambda each: each[0])


def _as_outcome(worst: WorstCase) -> PerQuery:
    return PerQuery(worst.hit, worst.ap, np.ones(len(worst.ap), bool), worst.identities)


def _row(place: Place, a: PerQuery, b: PerQuery, seed: int) -> Row:
    if not np.array_equal(a.valid, b.valid) or not np.array_equal(a.identities[a.valid], b.identities[b.valid]):
        raise BenchError(
            f"{place[0]} on {place[5]}, {place[6]}: the queries differ between the runs ({len(a.valid)} and "
            f"{len(b.valid)} ranked); compare runs on the same data"
        )
    valid, identities = a.valid, a.identities[a.valid]
    row: Row = dict(zip(_PLACE, place, strict=True)) | {"pixels": place[2] or None, "queries": int(valid.sum())}
    for name, before, after in (("rank1", a.hit, b.hit), ("mAP", a.ap, b.ap)):
        change = 100.0 * (after[valid] - before[valid]).astype(float)
        low, high = 0.0, 0.0
        if change.any():  # resampling is slow
            low, high = interval(change, identities, seed=seed, exact=False)
        row |= {f"{name}_a": 100.0 * float(np.mean(before[valid])), f"{name}_b": 100.0 * float(np.mean(after[valid]))}
        row |= {f"{name}_change": float(change.mean()), f"{name}_change_low": low, f"{name}_change_high": high}
    return row | {"changed": row["mAP_change_low"] > 0 or row["mAP_change_high"] < 0}
