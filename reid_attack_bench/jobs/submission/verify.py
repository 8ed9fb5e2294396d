"""Verify a submission: recompute a sample of its claims.

A submission is a zip archive of card.yaml, the victim's rows of the tables, the run record, and a store with the
artefacts that are not recomputed: the weights of a victim trained by the bench, and the adversarial images it was
evaluated on. Verification renders or loads the clean data, checks a sample of the adversarial images against their
budgets, embeds and ranks them again, and compares the results with the claims.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from reid_attack_bench.adversary import budget
from reid_attack_bench.contracts import ThreatModel, weights_digest
from reid_attack_bench.errors import BenchError, BudgetError
from reid_attack_bench.execute.events import Listener
from reid_attack_bench.execute.executor import execute
from reid_attack_bench.jobs.submission.card import Card, read_card
from reid_attack_bench.jobs.submission.pack import CARD, MATRIX
from reid_attack_bench.plan.plan import Cell, Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.report.record import MANIFEST, models, parse_record
from reid_attack_bench.steps.artefacts import read_crafted, read_splits
from reid_attack_bench.steps.workspace import Workspace
from reid_attack_bench.store import Store
from reid_attack_bench.suites.suite import Suite

TOLERANCE = 0.5
"""Largest difference of a recomputed Rank-1 or mAP, in points; rounding differs between machines."""

_COMPARED = ("rank1", "mAP")


@dataclass(frozen=True)
class Check:
    """Verification of one claim.

    Attributes:
        cell: description of the cell.
        claimed, found: Rank-1 and mAP in percent; NaN if they could not be computed.
        problem: why the claim does not hold; empty if it holds.
    """

    cell: str
    claimed: tuple[float, float]
    found: tuple[float, float]
    problem: str = ""


def verify(
    path: Path,
    *,
    victim: str | None,
    sample: int,
    seed: int,
    data_root: Path | None,
    device: torch.device,
    listener: Listener,
) -> list[Check]:
    """Recompute a sample of a submission's claims.

    Args:
        path: the submission.
        victim: FILE.py:NAME of the model, if it is not registered. Its code is run: read it first.
        sample: number of cells.
        seed: seed of the sample.

    Raises:
        BenchError: the submission cannot be read, or is of another model.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _unpack(path, root)
        record = parse_record((root / MANIFEST).read_text(), f"{path}: {MANIFEST}")
        claims = pd.read_csv(root / MATRIX)
        label = str(claims["target"].iloc[0])
        card = read_card(root / CARD)
        plan = _plan(record.suite, label, victim, data_root)
        cells = [cell for cell in plan.cells if cell.target == label and cell.rank_key in set(claims["rank_key"])]
        if not cells:
            raise BenchError(
                f"{path}: none of its {len(claims)} claims matches this model, code and data: give the submitted "
                f"file with --victim, and use version {record.bench} of the bench"
            )
        rng = np.random.default_rng(seed)
        chosen = [cells[i] for i in sorted(rng.choice(len(cells), min(sample, len(cells)), replace=False))]
        store = Store(root / "store")
        _discard_results(store, plan)
        for cell in chosen:  # before they could be crafted again
            if not store.has("craft", cell.craft_key):
                raise BenchError(f"{path} lacks the images of {_description(cell)}")
            store.open("craft", cell.craft_key)
        outcome = execute(replace(plan, wanted=tuple(cell.rank_key for cell in chosen)), store, device, listener)
        weights = _weights(store, plan, label, device)
        return [_check(cell, claims, store, outcome.failed, weights, card) for cell in chosen]


def _check(
    cell: Cell, claims: pd.DataFrame, store: Store, failed: Mapping[str, str], weights: str, card: Card
) -> Check:
    row = claims[claims["rank_key"] == cell.rank_key].iloc[0]
    claimed = (float(row["rank1"]), float(row["mAP"]))
    description = _description(cell)
    nothing = (float("nan"), float("nan"))
    if cell.rank_key in failed:
        return Check(description, claimed, nothing, failed[cell.rank_key])
    if weights != card.weights:
        return Check(description, claimed, nothing, f"the weights are {weights}, but the card has {card.weights}")
    clean = read_splits(store.folder("data", cell.data_key))
    try:
        for part, images in read_crafted(store.folder("craft", cell.craft_key)).items():
            _within_budget(images, clean[part].images, cell.threat, cell.attack)
    except BudgetError as error:
        return Check(description, claimed, nothing, str(error))
    facts = store.manifest("rank", cell.rank_key)["facts"]
    found = (float(facts["rank1"]), float(facts["mAP"]))
    allowed = max(TOLERANCE, 100.0 / facts["queries"])
    problems = [
        f"{name} is {new:.2f}, claimed {old:.2f}"
        for name, old, new in zip(_COMPARED, claimed, found, strict=True)
        if not abs(old - new) <= allowed
    ]
    return Check(description, claimed, found, "; ".join(problems))


def _description(cell: Cell) -> str:
    return f"{cell.attack} ε = {cell.threat.epsilon} from {cell.source} on {cell.dataset}"


def _within_budget(images: np.ndarray, clean: np.ndarray, threat: ThreatModel, attack: str) -> None:
    for first in range(0, len(images), 256):
        batch = torch.from_numpy(np.array(images[first : first + 256])).permute(0, 3, 1, 2).float() / 255
        budget.enforce(batch, np.asarray(clean[first : first + 256]), threat, attack=attack, first_index=first)


def _unpack(path: Path, root: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(root)
    except FileNotFoundError:
        raise BenchError(f"submission {path} does not exist") from None
    except (zipfile.BadZipFile, OSError) as error:
        raise BenchError(f"{path} is not a readable submission: {error}") from error
    for name in (CARD, MANIFEST, MATRIX):
        if not (root / name).is_file():
            raise BenchError(f"{path} is not a submission: it has no {name}")


def _plan(submitted: Suite, name: str, victim: str | None, data_root: Path | None) -> Plan:
    known = models(submitted).get(name)
    if victim is not None and known is not None:
        changed = tuple(
            replace(entry, use=victim) if entry.label == known.label else entry for entry in submitted.victims
        )
        submitted = replace(submitted, victims=changed)
    return make_plan(submitted, data_root=data_root)


def _discard_results(store: Store, plan: Plan) -> None:
    """Keep only images and weights; stored results would be the claims themselves."""
    for step in plan.steps.values():
        if step.kind not in ("craft", "victim"):
            store.discard(step.kind, step.key)


def _weights(store: Store, plan: Plan, label: str, device: torch.device) -> str:
    """Digest of the loaded model, independent of what the submission states."""
    key = next(row.victim_key for row in plan.clean if row.victim == label)
    workspace = Workspace(lambda k: store.open(plan.steps[k].kind, k), plan.steps, device, store.unfinished)
    return weights_digest(workspace.victim(key))
