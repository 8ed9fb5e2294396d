"""Pack a victim's card and results into one file."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from reid_attack_bench.data.catalogue import without_roots
from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import replace_file
from reid_attack_bench.jobs.submission.card import clean_row, read_card
from reid_attack_bench.report import rows
from reid_attack_bench.report.analysis import audit
from reid_attack_bench.report.analysis import leaderboard as tables
from reid_attack_bench.report.record import MANIFEST
from reid_attack_bench.report.results import CellRow, Results
from reid_attack_bench.store import Store

CARD, MATRIX, CLEAN, BOARD = "card.yaml", "matrix.csv", "clean.csv", "leaderboard.csv"


def pack(results: Results, store: Store, victim: str, card_path: Path, out: Path) -> Path:
    """Write the submission of one victim of a run; returns `out`.

    Raises:
        BenchError: the card does not match the victim, or the run has no results under attack for it.
    """
    card, row = read_card(card_path), clean_row(results, victim)
    for field, given, expected in (("name", card.name, victim), ("weights", card.weights, row.weights)):
        if given != expected:
            raise BenchError(f"card {card_path}: {field} is {given}, but the run evaluated {expected}")
    cells = [cell for cell in results.cells if cell.target == victim and cell.ok]
    if not cells:
        raise BenchError(f"the run has no results of {victim} under attack: nothing to submit")
    flags = audit.audit(results)
    board = tables.leaderboard(results, audit.unverified(flags), audit.doubtful(flags))
    mine = replace(results, cells=cells, clean=[row for row in results.clean if row.victim == victim])
    suite = replace(results.record.suite, datasets=without_roots(results.record.suite.datasets))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(card_path, CARD)
        archive.writestr(MANIFEST, replace(results.record, suite=suite, store="").to_json())
        for name, frame in (
            (MATRIX, tables.matrix(mine)),
            (CLEAN, tables.clean(mine)),
            (BOARD, board[board["victim"] == victim]),
        ):
            archive.writestr(name, rows.csv_text(frame))
        for kind, key in carried(results, victim, cells):
            for path in sorted(store.open(kind, key).iterdir()):
                archive.write(path, f"store/{kind}/{key}/{path.name}")
    return replace_file(out, content.getvalue())


def carried(results: Results, victim: str, cells: Iterable[CellRow]) -> list[tuple[str, str]]:
    """(kind, key) of the artefacts in a submission: its crafts, the victim and the victims that it is made of."""
    keys = {("craft", cell.craft_key) for cell in cells}
    wanted = [row.victim_key for row in results.record.clean if row.victim == victim][:1]
    inputs = {step.key: step.inputs for step in results.record.steps}
    while wanted:
        key = wanted.pop()
        keys.add(("victim", key))
        wanted += [inputs[key]["victim"]] if "victim" in inputs.get(key, {}) else []
    return sorted(keys)
