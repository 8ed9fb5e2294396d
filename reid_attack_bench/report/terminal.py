"""The leaderboard in the terminal."""

from __future__ import annotations

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from reid_attack_bench.report import labels, rows
from reid_attack_bench.report.analysis import controls
from reid_attack_bench.report.results import Results, Setting
from reid_attack_bench.report.rows import Row
from reid_attack_bench.text import visible

WIDTH = 120
"""Largest width of the table in characters."""

VICTIM_WIDTH = 24
"""Width of the victim column in characters; longer names are wrapped."""


def pair(row: Row, first: str, second: str, digits: int = 1) -> str:
    """Two values of a row as "12.3/45.6"; an en dash for a missing value, empty if both are missing."""
    values = [rows.number(row.get(name)) for name in (first, second)]
    if all(value != value for value in values):
        return ""
    return "/".join("–" if value != value else f"{value:.{digits}f}" for value in values)


def worst_pair(row: Row, epsilon: int) -> str:
    """Worst-case Rank-1/mAP at an epsilon; prefixed with "≤" if missing cells make it an upper bound."""
    shown = pair(row, f"worst_e{epsilon}_rank1", f"worst_e{epsilon}_mAP")
    missing = row.get(f"worst_e{epsilon}_missing")
    return f"≤{shown}" if shown and not rows.is_missing(missing) and int(missing or 0) > 0 else shown


def attack_pair(row: Row, setting: Setting) -> str:
    """White-box/transfer Rank-1 of an attack, in whole percent."""
    name = f"{setting.attack}_{setting.budget}"
    own = "query" if f"{name}_query_rank1" in row else "whitebox"
    return pair(row, f"{name}_{own}_rank1", f"{name}_transfer_rank1", digits=0)


def leaderboard_table(results: Results, leaderboard: pd.DataFrame, width: int = WIDTH) -> Table:
    """`leaderboard` (see analysis.leaderboard) as a table of at most `width` characters, values in %.

    Clean and worst case are Rank-1/mAP; attack columns are white-box/transfer Rank-1 at the headline epsilon. Attacks
    that do not fit are listed in the caption.
    """
    board = rows.rows(leaderboard)
    plan = [each for each in controls.without_controls(results) if each.epsilon == results.headline_epsilon]
    epsilons = rows.epsilons(results.settings)
    banner = labels.banner(results, (row["dataset"] for row in board))
    title = ", ".join(filter(None, (f"Leaderboard of {results.suite}", f"seed {results.seed}", banner)))
    table = Table(
        title=_plain(f"{title} (Rank-1/mAP in %)"),
        box=box.SIMPLE_HEAD, padding=0, show_edge=False,
    )  # fmt: skip
    columns: list[tuple[str, list[str], bool]] = [
        ("#", ["" if rows.is_missing(row["rank"]) else str(row["rank"]) for row in board], True),
        ("victim", [row["victim"] + _mark(row) for row in board], False),
        ("data set", [row["dataset"] for row in board], False),
    ]
    if labels.names_contain_dataset(results, board):
        columns.pop()  # the names contain it
    columns += [
        ("clean", [pair(row, "clean_rank1", "clean_mAP") for row in board], True),
    ]
    columns += [(f"worst\nε={epsilon}", [worst_pair(row, epsilon) for row in board], True) for epsilon in epsilons]
    best = f"best_control_e{results.headline_epsilon}"
    control = [pair(row, f"{best}_rank1", f"{best}_mAP") for row in board]
    columns += [("best\ncontrol", control, True)] if any(control) else []
    names = columns[1][1]
    room = min(width, WIDTH)
    for title, values, _ in columns:
        widest = max(len(word) for word in [*title.split("\n"), *values])
        room -= (min(widest, VICTIM_WIDTH) if title == "victim" else widest) + 1
    left_out = []
    for setting in plan:
        values = [attack_pair(row, setting) for row in board]
        title = _folded(setting.variant)
        needed = max(len(word) for word in [*title.split("\n"), *values]) + 1
        if needed > room:
            left_out.append(setting.variant)
            continue
        room -= needed
        columns.append((title, values, True))
    for title, _, right in columns:
        wide = min(max(len(name) for name in [*names, "victim"]), VICTIM_WIDTH) if title == "victim" else None
        table.add_column(
            _plain(title), justify="right" if right else "left", overflow="fold", width=wide, no_wrap=wide is None
        )
    for i in range(len(board)):
        table.add_row(*(_plain(values[i]) for _, values, _ in columns))
    table.caption = _plain(_caption(results, board, left_out))
    return table


def _plain(text: str) -> Text:
    """Text for any console: no markup."""
    return Text(visible(text))


def _caption(results: Results, board: list[Row], left_out: list[str]) -> str:
    """Words below the table; left_out: attacks without a column."""
    caption = [
        f"attack columns: Rank-1 white-box/transfer from the strongest source, ε = {results.headline_epsilon}/255"
    ]
    caption.append("≤: upper bound, cells are missing")
    marks = {_mark(row) for row in board}
    caption += [f"{mark.strip()}: {what}, see the audit in report.md" for mark, what in _MARKS.items() if mark in marks]
    if other := labels.elsewhere(results, results.headline_epsilon):
        caption.append(other)
    if left_out:
        caption.append("not shown: " + ", ".join(left_out) + " (see leaderboard.csv)")
    return "; ".join(caption)


_MARKS = {" (!)": "unverified", " (?)": "an amber flag"}


def _mark(row: rows.Row) -> str:
    """Mark of a victim with a red or an amber flag."""
    red, amber = rows.audit_flags(row)
    return " (!)" if red else " (?)" if amber else ""


def _folded(name: str, width: int = 8) -> str:
    """A column title broken at "_", "-", ":" and spaces into lines of about `width` characters."""
    lines = [""]
    for word in name.replace("_", "_\n").replace("-", "-\n").replace(":", ":\n").replace(" ", "\n").split("\n"):
        if lines[-1] and len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(lines)
