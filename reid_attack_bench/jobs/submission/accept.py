"""Accept a submission: recompute every claim, and make the row of the leaderboard from what was recomputed."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute.events import Listener, Outcome
from reid_attack_bench.files import replace_file
from reid_attack_bench.jobs import manifest
from reid_attack_bench.jobs.submission.card import Card
from reid_attack_bench.jobs.submission.opened import Submission, opened
from reid_attack_bench.jobs.submission.pack import BOARD, CARD, CLEAN, MATRIX
from reid_attack_bench.jobs.submission.verify import Check, loaded, recompute, victim_key
from reid_attack_bench.report import rows
from reid_attack_bench.report.analysis import audit
from reid_attack_bench.report.analysis import leaderboard as tables
from reid_attack_bench.report.analysis.conclude import Conclusions, conclude
from reid_attack_bench.report.collect import collect
from reid_attack_bench.report.labels import markdown_row, markdown_text
from reid_attack_bench.report.markdown import report_text
from reid_attack_bench.report.record import CellRecord, CleanRecord, RunRecord
from reid_attack_bench.report.results import Results
from reid_attack_bench.steps.victim import described
from reid_attack_bench.suites import parse
from reid_attack_bench.suites.suite import Suite

WEAKER = 0.01
"""Largest difference between a stored share of zero gradients and the one that is measured again."""


def accept(
    path: Path,
    out: Path,
    *,
    victim: str | None,
    data_root: Path | None,
    device: torch.device,
    listener: Listener,
) -> list[Check]:
    """Recompute all claims of a submission and, if all hold, write its row and tables into the new folder `out`.

    The claims are compared as `verify` does. The attacks of the protocol must be those of its file, on every row all
    of them, and the victim must be what the submission says of it. The tables and the audit are made from the
    recomputed rankings; what is not recomputed is the crafting of the adversarial images.

    Args:
        path: the submission.
        victim: FILE.py:NAME of the model, if it is not registered. Its code is run: read it first.

    Returns:
        One check per claim. If one has a problem, nothing is written.

    Raises:
        BenchError: the submission cannot be read, is of another model, or is not one of a protocol.
    """
    with opened(path, victim, data_root) as submission:
        _of_a_protocol(submission.record.suite, path)
        _whole(submission)
        for step in submission.plan.steps.values():
            if step.kind == "victim" and step.action != "train":  # its description is made again
                submission.store.discard(step.kind, step.key)
        checks, outcome = recompute(submission, submission.cells, _goals(submission), device, listener)
        if not any(check.problem for check in checks):
            _as_described(submission, device)
            record = _record(submission, outcome)
            write(collect(record, submission.store), submission.label, submission.card, out)
            shutil.copyfile(submission.folder / CARD, out / CARD)
        return checks


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
    fixed = tuple(parse.protocol_attacks(suite.protocol, suite.image_size).values())
    given = tuple(entry for entry in suite.attacks if entry.protocol)
    if parse.to_json(replace(suite, attacks=given)) != parse.to_json(replace(suite, attacks=fixed)):
        raise BenchError(f"{path}: its attacks are not those of {suite.protocol}: run the protocol as it is")
    if suite.relations and "white-box" not in suite.relations:
        raise BenchError(f"{path}: its suite leaves out attacks on the victim itself (relations): take another suite")


def _whole(submission: Submission) -> None:
    unknown = sum(~submission.claims["rank_key"].isin({cell.rank_key for cell in submission.cells}))
    if unknown:
        raise BenchError(
            f"{submission.path}: {unknown} of its {len(submission.claims)} claims do not match this model, code and "
            "data: give the submitted file, by the name that it had, with --victim, and use version "
            f"{submission.record.bench} of the bench"
        )


def _goals(submission: Submission) -> list[str]:
    """Keys of all that the row and its audit are made from."""
    keys = [key for cell in submission.cells for key in (cell.measure_key, cell.rank_key)]
    mine = [row for row in submission.plan.clean if row.victim == submission.label]
    return list(dict.fromkeys([*keys, *(key for row in mine for key in (row.rank_key, row.check_key))]))


def _as_described(submission: Submission, device: torch.device) -> None:
    """Check what the store of a submission says of its victim: the audit goes by it."""
    key = victim_key(submission)
    stored = submission.store.manifest("victim", key)["facts"]
    found = described(loaded(submission, device).victim(key), device)
    zero = "zero_gradient"
    wrong = [name for name in found if name != zero and stored.get(name) != found[name]]
    if abs(stored.get(zero, 0.0) - found.get(zero, 0.0)) > WEAKER:
        wrong.append(zero)
    if wrong:
        raise BenchError(
            f"{submission.path}: the victim has {wrong[0]} {found.get(wrong[0])!r}, but the submission has "
            f"{stored.get(wrong[0])!r}"
        )


def _record(submission: Submission, outcome: Outcome) -> RunRecord:
    """The record of the submitted run, of its victim alone. Cells that it lacks count as failed."""
    plan, record = submission.plan, submission.record
    cells = tuple(cell for cell in plan.cells if cell.target == submission.label)
    lacking = {cell.rank_key: "not in the submission" for cell in cells if cell.rank_key} | outcome.failed
    for cell in submission.cells:
        lacking.pop(cell.rank_key, None)
    used = {value for cell in cells for name, value in vars(cell).items() if name.endswith("_key")}
    used.add(victim_key(submission))
    return replace(
        record,
        finished=True,
        store="",
        notes=tuple(manifest.notes(plan, outcome)),
        failures=lacking,
        rebuilt=(),
        files=(),
        clean=tuple(CleanRecord(**vars(row)) for row in plan.clean),
        cells=tuple(CellRecord(**vars(cell)) for cell in cells),
        steps=tuple(step for step in record.steps if step.key in used),
    )
