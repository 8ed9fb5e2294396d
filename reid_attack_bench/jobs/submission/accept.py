"""Accept a submission: verify every claim, and make the row of the leaderboard from what was recomputed."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute.events import Listener
from reid_attack_bench.files import replace_file
from reid_attack_bench.jobs import manifest
from reid_attack_bench.jobs.submission.archive import BOARD, CARD, CLEAN, MATRIX
from reid_attack_bench.jobs.submission.card import Card
from reid_attack_bench.jobs.submission.opened import opened
from reid_attack_bench.jobs.submission.trusted import Given
from reid_attack_bench.jobs.submission.verify import Verified, verified
from reid_attack_bench.report import rows
from reid_attack_bench.report.analysis import audit
from reid_attack_bench.report.analysis import leaderboard as tables
from reid_attack_bench.report.analysis.conclude import Conclusions, conclude
from reid_attack_bench.report.labels import markdown_row, markdown_text
from reid_attack_bench.report.markdown import report_text
from reid_attack_bench.report.results import Results
from reid_attack_bench.suites.suite import Suite


def accept(
    path: Path, out: Path, *, given: Given, data_root: Path | None, device: torch.device, listener: Listener
) -> Verified:
    """Verify a submission and, if all holds, write its row and tables into the new folder `out`.

    The attacks of the protocol must be those of its file, and on every row all of them. The tables and the audit are
    made from the recomputed rankings.

    Args:
        path: the submission.
        given: the plug-ins and files that may be read. Their code is run: read it first.

    Returns:
        What verification found. If something is wrong, nothing is written.

    Raises:
        BenchError: the submission cannot be read, is of another model, or is not one of a protocol.
    """
    with opened(path, given, data_root) as submission:
        _of_a_protocol(submission.record.suite, path)
        found = verified(submission, device, listener)
        if not found.wrong:
            write(found.results, submission.label, submission.card, out)
            replace_file(out / CARD, submission.archive.read(CARD))
        return found


def write(results: Results, label: str, card: Card, out: Path) -> None:
    """Write the tables of the victim `label` of a run, the report and the record into `out`."""
    flags = audit.audit(results)
    board = tables.leaderboard(results, audit.unverified(flags), audit.doubtful(flags))
    board = board[board["victim"] == label]
    protocol = results.record.suite.protocol
    incomplete = [str(row["dataset"]) for row in rows.rows(board) if row["protocol"] != protocol]
    if incomplete or board.empty:
        raise BenchError(
            f"{label} did not face every attack of {protocol} on {', '.join(incomplete) or 'its training data set'}: "
            "run the whole protocol and submit again"
        )
    mine = replace(results, clean=[row for row in results.clean if row.victim == label])
    concluded = replace(conclude(mine), board=board, flags=[flag for flag in flags if flag.victim == label])
    out.mkdir(parents=True)
    rows.write_csv(board, out / BOARD)
    rows.write_csv(tables.matrix(mine, concluded.controls), out / MATRIX)
    rows.write_csv(tables.clean(mine), out / CLEAN)
    replace_file(out / "report.md", report_with_card(mine, concluded, card).encode())
    kept = tuple(row for row in results.record.clean if row.victim == label)
    manifest.write(replace(results.record, clean=kept), out)


def report_with_card(results: Results, concluded: Conclusions, card: Card) -> str:
    """report.md with the card before the leaderboard, and nothing of what is in a run's folder only."""
    first, *chapters = re.split(r"(?m)^(?=## )", report_text(results, {}, concluded))
    notes = [line for line in first.splitlines()[1:] if "(report.html)" not in line]
    lines = [f"# {markdown_text(card.name)}: a submission", *notes, "## Card", ""]
    lines += [markdown_row(["field", "content"]), markdown_row(["---", "---"])]
    for name, value in card:
        shown = ", ".join(value) if isinstance(value, list) else value
        lines += [markdown_row([markdown_text(name), markdown_text(shown)])] if shown else []
    kept = [chapter for chapter in chapters if not chapter.startswith("## Tables for a paper")]
    kept[0] = kept[0].replace(" Cost of attacks: [costs.csv](costs.csv).", "")
    return "\n".join([*lines, "", *kept])


def _of_a_protocol(suite: Suite, path: Path) -> None:
    if not suite.protocol:
        raise BenchError(f"{path} is of a run without a protocol: run it again with --protocol, and submit that")
    if suite.relations and "white-box" not in suite.relations:
        raise BenchError(f"{path}: its suite leaves out attacks on the victim itself (relations): take another suite")
