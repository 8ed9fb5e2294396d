"""The tables of a submission: those of one victim, made from its results, and compared with others."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from reid_attack_bench.errors import BenchError
from reid_attack_bench.jobs.submission.archive import BOARD, CLEAN, MATRIX
from reid_attack_bench.metrics.catalogue import measure_of
from reid_attack_bench.plan.plan import Cell
from reid_attack_bench.report import rows
from reid_attack_bench.report.analysis import audit
from reid_attack_bench.report.analysis import leaderboard as made
from reid_attack_bench.report.record import threat_columns
from reid_attack_bench.report.results import Results
from reid_attack_bench.text import csv_cell

TOLERANCE = 0.5
"""Largest difference of a recomputed percentage, in points; rounding differs between machines."""

CLOSE = 1e-2
"""Largest relative difference of any other recomputed measure."""

_IDENTITY = (
    "attack", "epsilon", "pixels", "perturbs", "sees", "query_budget", "top", "impersonate", "access", "needs",
    "source", "target", "relation", "dataset", "seed", "family", "steps", "adaptive", "protocol", "fitted_on",
    "craft_key", "features_key", "rank_key",
)  # fmt: skip
"""Columns of matrix.csv that the plan decides."""

_PLACE = ("attack", "epsilon", "source", "dataset")
_NAMES = {MATRIX: _PLACE, CLEAN: ("victim", "dataset"), BOARD: ("victim", "dataset")}
"""Columns that name a row of each table in messages."""


@dataclass(frozen=True)
class Table:
    """A CSV file as text: its columns, and its rows by column name."""

    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]


def of_victim(results: Results, victim: str) -> Results:
    """The results of one victim, with the names of the others alone: they are not in a submission."""
    return replace(
        results,
        cells=[cell for cell in results.cells if cell.target == victim],
        clean=[
            row if row.victim == victim else replace(row, detector="", values={}, checks=(), status="not submitted")
            for row in results.clean
        ],
    )


def tables_of(results: Results, victim: str) -> dict[str, str]:
    """The tables of a submission as CSV text, by file name."""
    mine = of_victim(results, victim)
    flags = audit.audit(mine)
    board = made.leaderboard(mine, audit.unverified(flags), audit.doubtful(flags))
    clean = made.clean(mine)
    frames = {
        MATRIX: made.matrix(mine),
        CLEAN: clean[clean["victim"] == victim],
        BOARD: board[board["victim"] == victim],
    }
    return {name: rows.csv_text(frame) for name, frame in frames.items()}


def read_table(content: bytes, where: str) -> Table:
    """A table as it was submitted.

    Raises:
        BenchError: no CSV in UTF-8, a column that stands twice, or a row of another length.
    """
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BenchError(f"{where} is not a table: {error}") from error
    if not lines:
        raise BenchError(f"{where} is empty")
    columns = tuple(lines[0])
    for name, count in Counter(columns).items():
        if count > 1:
            raise BenchError(f"{where} has the column {name!r} {count} times")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(columns):
            raise BenchError(f"{where}, row {number} has {len(line)} values for {len(columns)} columns")
    return Table(columns, tuple(dict(zip(columns, line, strict=True)) for line in lines[1:]))


def description(cell: Cell) -> str:
    """A cell in words."""
    limits = {"pixels": cell.threat.pixels, "queries": cell.threat.queries, "seed": cell.seed or None}
    more = "".join(
        f", {limit} {name}" if name != "seed" else f", seed {limit}" for name, limit in limits.items() if limit
    )
    return f"{cell.attack} ε = {cell.threat.epsilon}{more} from {cell.source} on {cell.dataset}"


def check_claims(table: Table, cells: Iterable[Cell], where: str, version: str) -> None:
    """Check that `table` claims every cell once and nothing else.

    Raises:
        BenchError: the first that is missing, twice, or of no cell.
    """
    for name in _IDENTITY:
        if name not in table.columns:
            raise BenchError(f"{where} has no column {name}")
    wanted = {_identity(cell): cell for cell in cells}
    claimed = Counter(tuple(row[name] for name in _IDENTITY) for row in table.rows)
    unknown = [claim for claim in claimed if claim not in wanted]
    if unknown and not any(claim in wanted for claim in claimed):
        raise BenchError(
            f"{where}: none of its {len(table.rows)} claims matches this model, code and data: give the submitted "
            f"file, by the name that it had, with --victim, and use version {version} of the bench"
        )
    if unknown:
        words = " ".join(
            f"{name} {value!r}" for name, value in zip(_IDENTITY, unknown[0], strict=True) if name in _PLACE
        )
        raise BenchError(
            f"{where}: {len(unknown)} of its {len(table.rows)} claims do not match this model, code and data; the "
            f"first: {words}"
        )
    lacking = [cell for identity, cell in wanted.items() if identity not in claimed]
    if lacking:
        raise BenchError(
            f"{where} lacks {len(lacking)} of the {len(wanted)} cells of its suite; the first: "
            f"{description(lacking[0])}"
        )
    twice = next((identity for identity, count in claimed.items() if count > 1), None)
    if twice is not None:
        raise BenchError(f"{where} claims {description(wanted[twice])} twice")


def _identity(cell: Cell) -> tuple[str, ...]:
    values = {**vars(cell), **threat_columns(cell.threat), "needs": "+".join(cell.needs)}
    return tuple(csv_cell(rows.format_value(name, values[name])) for name in _IDENTITY)


def differences(claimed: Table, found: Table, name: str) -> Iterator[tuple[int, str]]:
    """(row, what differs) where a submitted table differs from the one that was made again; −1 for the whole."""
    if claimed.columns != found.columns:
        apart = [each for each in claimed.columns if each not in found.columns]
        apart += [each for each in found.columns if each not in claimed.columns]
        yield -1, f"{name} has other columns than are made here: {', '.join(apart[:3]) or 'in another order'}"
        return
    if len(claimed.rows) != len(found.rows):
        yield -1, f"{name} has {len(claimed.rows)} rows, and {len(found.rows)} are made here"
        return
    for index, (old, new) in enumerate(zip(claimed.rows, found.rows, strict=True)):
        allowed = max(TOLERANCE, 100.0 / max(1.0, number_in(new.get("queries", "")) or 1.0))
        apart = [each for each in found.columns if not _same(each, old[each], new[each], allowed)]
        if apart:
            where = " ".join(f"{each} {new[each]}" for each in _NAMES[name] if each in new)
            said = "; ".join(f"{each} is {_said(new[each])}, claimed {_said(old[each])}" for each in apart[:3])
            yield index, f"{name}, {where}: {said}{f' and {len(apart) - 3} more' if len(apart) > 3 else ''}"


def _same(column: str, old: str, new: str, allowed: float) -> bool:
    measure = measure_of(column)
    if old == new or measure is None:
        return old == new
    before, after = number_in(old), number_in(new)
    if not (math.isfinite(before) and math.isfinite(after)):
        return False
    if measure.unit != "%":
        allowed = CLOSE * (1.0 if measure.group == "victim" else max(abs(after), 10.0**-measure.csv_digits))
    return abs(before - after) <= allowed


def number_in(text: str) -> float:
    """The number in a value of a table; NaN if it is empty or none."""
    try:
        return float(text) if text.isascii() else math.nan
    except ValueError:
        return math.nan


def without_lpips(*tables: Table) -> tuple[Table, ...]:
    """`tables` without LPIPS where one of them has none: its weights are not on every machine."""
    name = "lpips"
    if all(any(row.get(name) for row in table.rows) for table in tables):
        return tables
    return tuple(
        replace(table, rows=tuple({**row, name: ""} if name in row else row for row in table.rows)) for table in tables
    )


def _said(text: str) -> str:
    shown = text if len(text) <= 60 else f"{text[:57]}…"
    return repr(shown) if not shown or any(each < " " for each in shown) else shown
