"""Open a submission: check what it holds, and plan the same run with the models, code and data of this machine.

A submission is a zip archive of card.yaml, the victim's rows of the tables, the run record, and a store with what is
not recomputed: the weights of a victim trained by the bench, and the adversarial images it was evaluated on. Nothing in
it is trusted, see `archive` and `trusted`.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reid_attack_bench import __version__
from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import file_digest
from reid_attack_bench.jobs import manifest
from reid_attack_bench.jobs.submission import trusted
from reid_attack_bench.jobs.submission.archive import (
    BOARD,
    CARD,
    CLEAN,
    MANIFEST,
    MATRIX,
    TOTAL,
    Archive,
    opened_archive,
)
from reid_attack_bench.jobs.submission.card import Card, parse_card
from reid_attack_bench.jobs.submission.images import expected_files
from reid_attack_bench.jobs.submission.probes import claimed_probes, with_probes
from reid_attack_bench.jobs.submission.tables import Table, check_claims, read_table
from reid_attack_bench.jobs.submission.trusted import Given
from reid_attack_bench.plan.plan import Cell, Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.report.record import RunRecord, models, parse_record
from reid_attack_bench.store import Store


@dataclass(frozen=True)
class Submission:
    """An opened submission.

    Attributes:
        path, digest: the file and its sha256.
        archive: its content; open as long as `opened` is.
        label: of the victim.
        tables: its tables by file name.
        plan: of the submitted suite on this machine.
        cells: cells of the plan whose target is the victim; each is claimed once.
        store: a new store.
        unsaid: what cannot be verified of the suite.
    """

    path: Path
    digest: str
    archive: Archive
    card: Card
    record: RunRecord
    label: str
    tables: Mapping[str, Table]
    plan: Plan
    cells: tuple[Cell, ...]
    store: Store
    unsaid: tuple[str, ...] = ()

    @property
    def victim_key(self) -> str:
        """Key of the submitted victim."""
        return next(row.victim_key for row in self.plan.clean if row.victim == self.label)


@contextlib.contextmanager
def opened(path: Path, given: Given, data_root: Path | None) -> Iterator[Submission]:
    """Open a submission, with a temporary folder for its store.

    Args:
        given: what the command line names.

    Raises:
        BenchError: it cannot be read, is of another model, names code or files that are not given, or its claims,
            images and record are not those of its suite.
    """
    with opened_archive(path) as archive, tempfile.TemporaryDirectory() as folder:
        card = parse_card(archive.read(CARD), f"{path}: {CARD}")
        record = parse_record(_text(archive, MANIFEST), f"{path}: {MANIFEST}")
        tables = {name: read_table(archive.read(name), f"{path}: {name}") for name in (MATRIX, CLEAN, BOARD)}
        model = models(record.suite).get(card.name)
        if model is None:
            raise BenchError(f"{path}: its card is of {card.name!r}, which is no victim of its suite")
        try:
            suite, live = trusted.allowed(record.suite, given, model.label)
            unsaid = [trusted.check_name(record.suite, model.label)]
            plan = _planned(suite, data_root, live)
        except BenchError as error:
            raise BenchError(f"{path}: {error}") from error
        probes = claimed_probes(archive, record, plan)
        for key in probes:
            unsaid.append(
                f"what decides the answers of {plan.steps[key].about} beside its file and weights: they differ"
            )
        plan = with_probes(plan, probes) if probes else plan
        cells = tuple(cell for cell in plan.cells if cell.target == card.name)
        check_claims(tables[MATRIX], cells, f"{path}: {MATRIX}", record.bench)
        _check_record(record, plan, cells, path)
        _check_stored(archive, plan, cells)
        yield Submission(
            path, file_digest(path), archive, card, record, card.name, tables, plan, cells,
            Store(Path(folder) / "store"), tuple(filter(None, unsaid)),
        )  # fmt: skip


def card_of(path: Path) -> Card:
    """The card of a submission."""
    with opened_archive(path) as archive:
        return parse_card(archive.read(CARD), f"{path}: {CARD}")


def _text(archive: Archive, name: str) -> str:
    try:
        return archive.read(name).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BenchError(f"{archive.path}: {name} is not UTF-8: {error}") from error


def _planned(suite: Any, data_root: Path | None, live: Mapping[str, Any]) -> Plan:
    try:
        plan = make_plan(suite, data_root=data_root, live=live)
    except BenchError:
        raise
    except Exception as error:  # a stranger's settings of a plug-in, which may raise anything
        words = " ".join(str(error).split())[:200]
        raise BenchError(f"its suite cannot be planned: {type(error).__name__}: {words}") from error
    height, width = suite.image_size
    for source in manifest.sources(plan):
        if sum(source.counts.values()) * height * width * 3 > TOTAL:
            raise BenchError(f"data set {source.name} has {sum(source.counts.values()):,} images of {height}×{width}")
    return plan


def _check_record(record: RunRecord, plan: Plan, cells: tuple[Cell, ...], path: Path) -> None:
    """Raises BenchError where the record of the run is not one of the plan, or its cells failed."""
    where = f"{path}: {MANIFEST}"
    if not record.finished:
        raise BenchError(f"{where} is of a run that is not finished")
    failed = next((cell for cell in cells if cell.rank_key in record.failures), None)
    if failed is not None:
        raise BenchError(f"{where} says that {failed.attack} from {failed.source} failed")
    for name, rows in manifest.rows_of(plan).items():
        given, expected = (Counter(filter(None, map(_seen, each))) for each in (getattr(record, name), rows))
        apart = next(iter((given - expected) or (expected - given)), "")
        if apart:
            raise BenchError(
                f"{where} has other {name} than its suite has here (version {__version__}); the first: {apart[:160]}"
            )


def _seen(row: Any) -> str:
    """A row of a record without what this machine decides: LPIPS, times."""
    if getattr(row, "kind", "") == "measure":
        return ""
    own = {"measure_key": "", "seconds": None, "done_in_this_run": False}
    return repr(replace(row, **{name: value for name, value in own.items() if hasattr(row, name)}))


def _check_stored(archive: Archive, plan: Plan, cells: tuple[Cell, ...]) -> None:
    """Raises BenchError for images that are missing, or that no cell needs."""
    expected = expected_files(plan.steps, cells)
    for name in sorted(expected - set(archive.sizes)):
        cell = next(cell for cell in cells if cell.craft_key in name)
        raise BenchError(
            f"{archive.path} lacks the images of {cell.attack} from {cell.source} on {cell.dataset}: {name}"
        )
    for name in sorted(archive.sizes):
        kind, key = name.split("/")[1:3] if name.startswith("store/") else ("", "")
        if name.endswith(".npy") and name not in expected:
            raise BenchError(f"{archive.path} holds {name}, which no cell of its suite needs")
        if kind and (key not in plan.steps or plan.steps[key].kind != kind):
            raise BenchError(f"{archive.path} holds {name}, which is of no step of its suite")
