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
from reid_attack_bench.jobs.submission.archive import CARD, MANIFEST, STORED, place
from reid_attack_bench.jobs.submission.card import clean_row, read_card
from reid_attack_bench.jobs.submission.tables import tables_of
from reid_attack_bench.report.results import NOT_APPLICABLE, CellRow, Results
from reid_attack_bench.store import Store


def pack(results: Results, store: Store, victim: str, card_path: Path, out: Path) -> Path:
    """Write the submission of one victim of a run; returns `out`.

    Raises:
        BenchError: the card does not match the victim, or the run has no results under attack for it.
    """
    card, row = read_card(card_path), clean_row(results, victim)
    for field, given, expected in (("name", card.name, victim), ("weights", card.weights, row.weights)):
        if given != expected:
            raise BenchError(f"card {card_path}: {field} is {given}, but the run evaluated {expected}")
    cells = [cell for cell in results.cells if cell.target == victim]
    if not any(cell.ok for cell in cells):
        raise BenchError(f"the run has no results of {victim} under attack: nothing to submit")
    lacking = [cell for cell in cells if not cell.ok and not cell.status.startswith(NOT_APPLICABLE)]
    if lacking:
        first = f"{lacking[0].setting.variant} from {lacking[0].source}: {lacking[0].status}"
        raise BenchError(
            f"{len(lacking)} of {len(cells)} cells of {victim} have no results, and all must; the first: {first}"
        )
    suite = replace(results.record.suite, datasets=without_roots(results.record.suite.datasets))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(card_path, CARD)
        archive.writestr(MANIFEST, replace(results.record, suite=suite, store="").to_json())
        for name, text in tables_of(results, victim).items():
            archive.writestr(name, text)
        whole = carried(results, victim, cells)
        for kind, key in whole:
            folder = store.open(kind, key)
            for name in STORED[kind]:
                if (folder / name).is_file():
                    archive.write(folder / name, place(kind, key, name))
        for step in results.record.steps:  # of other victims, what is in their keys
            if step.kind == "victim" and (step.kind, step.key) not in whole and store.has(step.kind, step.key):
                about = store.folder(step.kind, step.key) / MANIFEST
                archive.write(about, place(step.kind, step.key, MANIFEST))
    return replace_file(out, content.getvalue())


def carried(results: Results, victim: str, cells: Iterable[CellRow]) -> list[tuple[str, str]]:
    """(kind, key) of the artefacts in a submission: its crafts, the victim and the victims that it is made of."""
    keys = {("craft", cell.craft_key) for cell in cells if cell.craft_key}
    wanted = [row.victim_key for row in results.record.clean if row.victim == victim][:1]
    inputs = {step.key: step.inputs for step in results.record.steps}
    while wanted:
        key = wanted.pop()
        keys.add(("victim", key))
        wanted += [inputs[key]["victim"]] if "victim" in inputs.get(key, {}) else []
    return sorted(keys)
