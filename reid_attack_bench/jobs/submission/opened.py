"""Open a submission: unpack it, and plan the same run with the models, code and data of this machine.

A submission is a zip archive of card.yaml, the victim's rows of the tables, the run record, and a store with the
artefacts that are not recomputed: the weights of a victim trained by the bench, and the adversarial images it was
evaluated on.
"""

from __future__ import annotations

import contextlib
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from reid_attack_bench.errors import BenchError
from reid_attack_bench.jobs.submission.card import Card, read_card
from reid_attack_bench.jobs.submission.pack import CARD, MATRIX
from reid_attack_bench.plan.plan import Cell, Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.report.record import MANIFEST, RunRecord, models, parse_record
from reid_attack_bench.store import Store
from reid_attack_bench.suites.suite import Suite


@dataclass(frozen=True)
class Submission:
    """An unpacked submission.

    Attributes:
        path: the archive; folder: where it is unpacked.
        label: of the victim.
        claims: its rows of matrix.csv.
        plan: of the submitted suite on this machine.
        cells: cells of the plan that a claim is about.
        store: what was submitted of the store, without any result: those would be the claims themselves.
    """

    path: Path
    folder: Path
    card: Card
    record: RunRecord
    label: str
    claims: pd.DataFrame
    plan: Plan
    cells: tuple[Cell, ...]
    store: Store

    def require_images(self, cells: tuple[Cell, ...]) -> None:
        """Check that the adversarial images of `cells` were submitted and are undamaged: they are not made again."""
        for cell in cells:
            if not self.store.has("craft", cell.craft_key):
                raise BenchError(f"{self.path} lacks the images of {description(cell)}")
            self.store.open("craft", cell.craft_key)


@contextlib.contextmanager
def opened(path: Path, victim: str | None, data_root: Path | None) -> Iterator[Submission]:
    """Unpack a submission into a temporary folder.

    Args:
        victim: FILE.py:NAME of the model, if it is not registered.

    Raises:
        BenchError: it cannot be read, or is of another model.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _unpack(path, root)
        record = parse_record((root / MANIFEST).read_text(encoding="utf-8"), f"{path}: {MANIFEST}")
        claims = pd.read_csv(root / MATRIX)
        label = str(claims["target"].iloc[0])
        card = read_card(root / CARD)
        plan = _plan(record.suite, label, victim, data_root)
        cells = tuple(cell for cell in plan.cells if cell.target == label and cell.rank_key in set(claims["rank_key"]))
        if not cells:
            raise BenchError(
                f"{path}: none of its {len(claims)} claims matches this model, code and data: give the submitted "
                f"file, by the name that it had, with --victim, and use version {record.bench} of the bench"
            )
        store = Store(root / "store")
        for step in plan.steps.values():
            if step.kind not in ("craft", "victim"):
                store.discard(step.kind, step.key)
        yield Submission(path, root, card, record, label, claims, plan, cells, store)


def card_of(path: Path) -> Card:
    """The card of a submission, without unpacking the rest."""
    with tempfile.TemporaryDirectory() as folder:
        _unpack(path, Path(folder), [CARD])
        return read_card(Path(folder) / CARD)


def description(cell: Cell) -> str:
    """A cell in words."""
    return f"{cell.attack} ε = {cell.threat.epsilon} from {cell.source} on {cell.dataset}"


def _unpack(path: Path, root: Path, names: list[str] | None = None) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            for name in (CARD, MANIFEST, MATRIX):
                if name not in archive.namelist():
                    raise BenchError(f"{path} is not a submission: it has no {name}")
            archive.extractall(root, names)
    except FileNotFoundError:
        raise BenchError(f"submission {path} does not exist") from None
    except (zipfile.BadZipFile, OSError) as error:
        raise BenchError(f"{path} is not a readable submission: {error}") from error


def _plan(submitted: Suite, name: str, victim: str | None, data_root: Path | None) -> Plan:
    known = models(submitted).get(name)
    if victim is not None and known is not None:
        changed = tuple(
            replace(entry, use=victim) if entry.label == known.label else entry for entry in submitted.victims
        )
        submitted = replace(submitted, victims=changed)
    return make_plan(submitted, data_root=data_root)
