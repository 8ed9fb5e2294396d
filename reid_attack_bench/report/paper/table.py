"""Tables for papers, independent of their format."""

from __future__ import annotations

import functools
import math
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from reid_attack_bench.report import labels
from reid_attack_bench.report import rows as result_rows
from reid_attack_bench.report.analysis import controls
from reid_attack_bench.report.analysis.controls import Controls
from reid_attack_bench.report.analysis.leaderboard import order_in_words
from reid_attack_bench.report.results import CellRow, CleanRow, Results, Setting
from reid_attack_bench.report.rows import is_missing, is_unverified, number

NOT_BELOW = "mAP not below that of the best control, by a paired 95 % interval over identities"
"""Note of a transferred attack that is no better than random changes."""

REASON_LENGTH = 160
"""Largest length of a reason; longer ones are truncated (matrix.csv has the full text)."""


@dataclass(frozen=True)
class Value:
    """A value of a table in %. text: "12.3", or "" if missing; then `notes` give the reason.

    spread: standard deviation over seeds; interval: "[10.1, 14.2]"; best: best of its column, in bold; own: source =
    target.
    """

    text: str
    spread: str = ""
    interval: str = ""
    best: bool = False
    own: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """A row. stub: row names; rule: whether a rule is drawn above; notes: notes of the last row name."""

    stub: tuple[str, ...]
    values: tuple[Value, ...]
    rule: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PaperTable:
    """A table in any format. groups: (title, number of columns); heads: column names; short: narrow heads."""

    caption: str
    label: str
    stub: tuple[str, ...]
    groups: tuple[tuple[str, int], ...]
    heads: tuple[str, ...]
    lines: tuple[Line, ...]
    short: tuple[str, ...] = ()
    intervals: str = "95 % bootstrap intervals over identities in brackets."
    comment: str = ""

    @functools.cached_property
    def notes(self) -> dict[str, str]:
        """Note → mark (a, b, …, z, aa, …), in reading order."""
        found: dict[str, str] = {}
        names = ("".join(letters) for length in (1, 2, 3) for letters in product(string.ascii_lowercase, repeat=length))
        for line in self.lines:
            for note in (*line.notes, *(note for value in line.values for note in value.notes)):
                if note not in found:
                    found[note] = next(names)
        return found


def leaderboard(results: Results, board: pd.DataFrame) -> PaperTable:
    """The leaderboard with clean values and the worst case at every epsilon."""
    rows = result_rows.rows(board)
    epsilons = result_rows.epsilons(results.settings)
    names = ["clean", *(f"worst_e{epsilon}" for epsilon in epsilons)]
    columns = [f"{name}_{metric}" for name in names for metric in labels.METRICS]
    stub = {"#": ["–" if is_missing(row["rank"]) else str(row["rank"]) for row in rows]}
    stub["victim"] = [str(row["victim"]) for row in rows]
    if any(row["defence"] for row in rows):
        stub["defence"] = [str(row["defence"]) for row in rows]
    if not labels.names_contain_dataset(results, rows):
        stub["data set"] = [str(row["dataset"]) for row in rows]  # otherwise the names contain it
    standing = [row for row in rows if not is_unverified(row)]
    bounded = {name for name in columns for row in standing if row.get(f"{name.rpartition('_')[0]}_missing", 0)}
    highest = {  # an upper bound is never the best
        name: "" if name in bounded else _best([number(row.get(name)) for row in standing]) for name in columns
    }
    lines = []
    for i, row in enumerate(rows):
        values = []
        for name in columns:
            gone = row.get(name.rpartition("_")[0] + "_missing", 0)
            value = _value(row, name, "no attack up to this ε succeeded" if "worst" in name else "not evaluated")
            if value.text and gone:
                bound = "≤: upper bound, cells of this worst case are missing; the true value can only be lower"
                value = replace(value, text="≤ " + value.text, notes=(bound,))
            best = bool(value.text) and not is_unverified(row) and _shown(row.get(name)) == highest[name]
            values.append(replace(value, best=best))
        below = is_unverified(row) and (i == 0 or not is_unverified(rows[i - 1]))
        notes = (f"{row['audit']}; see the audit in report.md",) if row["audit"] else ()
        lines.append(Line(tuple(column[i] for column in stub.values()), tuple(values), below, notes))
    places = "; ".join(labels.describe(results, name) for name in sorted({str(row["dataset"]) for row in rows}))
    caption = (
        f"Robustness of re-identification models in %, suite {results.suite}, seed {results.seed} ({places}). "
        "Worst case at ε: for each query the lowest outcome without attack and over all attacks and sources with an L∞ "
        f"budget of at most ε, then the mean over queries. Ordered by {order_in_words(results)}."
    )
    caption += " Bold: highest in its column." if any(f.best for line in lines for f in line.values) else ""
    groups = ("clean", *(f"worst case, ε = {epsilon}/255" for epsilon in epsilons))
    return PaperTable(
        caption, f"leaderboard-{results.suite}", tuple(stub), tuple((group, len(labels.METRICS)) for group in groups),
        tuple(labels.METRICS.values()) * len(groups), tuple(lines), comment=_comment(results),
    )  # fmt: skip


# size: one table, read from top to bottom
def matrix(
    results: Results, dataset: str, setting: Setting, metric: str, compared: Controls | None = None
) -> PaperTable:
    """Sources × targets of one attack at one budget on one data set; metric is "rank1" or "mAP".

    `compared`: the controls of the run, for a row of the best one; found if None.
    """
    compared = compared or controls.find(results)
    cells = [cell for cell in results.cells if cell.dataset == dataset and cell.setting == setting]
    clean_rows = {row.victim: row for row in results.clean if row.dataset == dataset}
    sources = sorted({cell.source for cell in cells})
    targets = sorted({cell.target for cell in cells})
    groups: dict[tuple[str, str], list[CellRow]] = {}
    for cell in cells:
        groups.setdefault((cell.source, cell.target), []).append(cell)
    means = {place: result_rows.over_seeds(group)[0] for place, group in groups.items()}
    lowest = {
        target: _best(
            [cell.value(metric) for (_, at), cell in means.items() if at == target and cell.ok and not cell.own],
            lowest=True,
        )
        for target in targets
    }
    clean = [_of_row(clean_rows.get(target), metric, "not evaluated") for target in targets]
    lines = [Line((labels.CLEAN_ROW,), tuple(clean)), *_control_line(cells, targets, metric, compared)]
    for source in sources:
        values = []
        for target in targets:
            value = _attacked(groups.get((source, target), []), means.get((source, target)), metric)
            over = compared.means.get(means[source, target].place) if (source, target) in means else None
            if over is not None and not over.transfers:
                value = replace(value, notes=(*value.notes, NOT_BELOW))
            own = source == target or any(cell.own for cell in groups.get((source, target), []))
            best = not own and bool(value.text) and value.text == lowest[target]
            values.append(replace(value, best=best, own=own))
        lines.append(Line((source,), tuple(values), rule=source == sources[0]))
    seeds = sorted({cell.seed for cell in cells})
    every = [value for line in lines for value in line.values]
    words = [
        f"{labels.METRICS[metric]} in % under {setting.variant}, L∞ budget ε = {setting.epsilon}/255, on "
        f"{labels.describe(results, dataset)}; suite {results.suite}, seed {results.seed}.",
        "Rows: the model that the attack was crafted on; columns: the model that is evaluated.",
    ]
    if any(value.spread for value in every):
        words.append(f"Mean ± standard deviation over {len(seeds)} seeds of the attack.")
    words += ["*: white-box (source = target)."] * any(value.own for value in every)
    if any(value.best for value in every):
        gaps = " among those with a value" if any(not value.text for value in every) else ""
        words.append(f"Bold: strongest transfer to that model{gaps}.")
    if len(lines) > len(sources) + 1:
        words.append("Best control: random changes of the same budget without a model, the lowest on these queries.")
    interval = "95 % bootstrap intervals over identities in brackets" + (
        ", mean over seeds." if len(seeds) > 1 else "."
    )
    label = f"matrix-{results.suite}-{dataset}-{setting.attack}-{setting.budget}-{metric}"
    return PaperTable(
        " ".join(words), label, ("crafted on",), (("evaluated on", len(targets)),), tuple(targets), tuple(lines),
        short=tuple(f"({i})" for i in range(1, len(targets) + 1)), intervals=interval, comment=_comment(results),
    )  # fmt: skip


def _control_line(cells: list[CellRow], targets: list[str], metric: str, compared: Controls) -> list[Line]:
    """The best control of each target at the budget of `cells`; none for controls and where none was run."""
    if all(controls.is_control(cell) for cell in cells):
        return []
    best = {cell.target: compared.best_at(cell) for cell in cells}
    if not any(best.values()):
        return []
    used = sorted({compared.names[control.attack] for control in best.values() if control})
    values = (_of_row(best[target], metric, controls.NO_CONTROL) for target in targets)
    return [Line((f"{controls.BEST} ({' or '.join(used)})",), tuple(values))]


def _attacked(group: list[CellRow], mean: CellRow | None, metric: str) -> Value:
    done = [cell for cell in group if cell.ok]
    reasons = list(dict.fromkeys(_cut(cell.status) for cell in group if not cell.ok))
    if mean is None or not done:
        return Value("", notes=("; ".join(reasons) or "not run",))
    value = _of_row(mean, metric, "no value")
    spread = ""
    if len(done) > 1:
        spread = f"{float(np.std([cell.value(metric) for cell in done], ddof=1)):.1f}"
    notes = (f"{len(done)} of {len(group)} seeds; {'; '.join(reasons)}",) if reasons else ()
    return replace(value, spread=spread, notes=value.notes + notes)


def _of_row(row: CellRow | CleanRow | None, name: str, without: str) -> Value:
    """A value of a row with its interval; for a failed row the reason."""
    if row is not None and not row.ok:
        return Value("", notes=(_cut(row.status),))
    return _value(row.values if row else {}, name, without)


def _value(row: Mapping[str, Any], name: str, without: str) -> Value:
    """A value with its interval; `without` is the note if it is missing."""
    text = _shown(row.get(name))
    if not text:
        return Value("", notes=(without,))
    ends = [_shown(row.get(f"{name}{end}")) for end in ("_low", "_high")]
    return Value(text, interval=f"[{ends[0]}, {ends[1]}]" if all(ends) else "")


def _shown(value: object) -> str:
    known = number(value)
    return "" if math.isnan(known) else f"{known + 0.0:.1f}"


def _best(values: Iterable[float], lowest: bool = False) -> str:
    """The highest (or lowest) value as text, "" if all values are equal."""
    known = [value for value in values if not math.isnan(value)]
    if len({_shown(value) for value in known}) < 2:
        return ""
    return _shown(min(known) if lowest else max(known))


def _cut(reason: str) -> str:
    line = " ".join(reason.split())
    return line if len(line) <= REASON_LENGTH else line[: REASON_LENGTH - 1] + "…"


def _comment(results: Results) -> str:
    return " ".join(f"suite {results.suite}, seed {results.seed}; made by: {results.record.command}".split())
