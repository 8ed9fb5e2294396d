"""Verify a submission: recompute a sample of its claims.

Verification renders or loads the clean data, checks a sample of the adversarial images against their budgets, embeds
and ranks them again, and compares the results with the claims.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from reid_attack_bench.adversary import budget
from reid_attack_bench.contracts import ThreatModel, unbound, weights_digest
from reid_attack_bench.errors import BudgetError
from reid_attack_bench.execute.events import Listener, Outcome
from reid_attack_bench.execute.executor import execute
from reid_attack_bench.jobs.submission.opened import Submission, description, opened
from reid_attack_bench.plan.plan import Cell
from reid_attack_bench.steps.artefacts import read_crafted, read_splits
from reid_attack_bench.steps.workspace import Workspace

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
    with opened(path, victim, data_root) as submission:
        cells = submission.cells
        rng = np.random.default_rng(seed)
        chosen = tuple(cells[i] for i in sorted(rng.choice(len(cells), min(sample, len(cells)), replace=False)))
        return recompute(submission, chosen, [cell.rank_key for cell in chosen], device, listener)[0]


def recompute(
    submission: Submission, cells: tuple[Cell, ...], goals: Iterable[str], device: torch.device, listener: Listener
) -> tuple[list[Check], Outcome]:
    """Make the steps `goals`, and compare `cells` with the claims. The rank steps of `cells` are among the goals."""
    submission.require_images(cells)  # before they could be crafted again
    outcome = execute(replace(submission.plan, wanted=tuple(goals)), submission.store, device, listener)
    weights = weights_digest(unbound(loaded(submission, device).victim(victim_key(submission))))
    return [_check(submission, cell, outcome.failed, weights) for cell in cells], outcome


def loaded(submission: Submission, device: torch.device) -> Workspace:
    """The store of a submission, for models to be loaded from."""
    plan, store = submission.plan, submission.store
    return Workspace(lambda key: store.open(plan.steps[key].kind, key), plan.steps, device, store.unfinished)


def victim_key(submission: Submission) -> str:
    """Key of the submitted victim."""
    return next(row.victim_key for row in submission.plan.clean if row.victim == submission.label)


def _check(submission: Submission, cell: Cell, failed: Mapping[str, str], weights: str) -> Check:
    claims, store, card = submission.claims, submission.store, submission.card
    row = claims[claims["rank_key"] == cell.rank_key].iloc[0]
    claimed = (float(row["rank1"]), float(row["mAP"]))
    words = description(cell)
    nothing = (float("nan"), float("nan"))
    if cell.rank_key in failed:
        return Check(words, claimed, nothing, failed[cell.rank_key])
    if weights != card.weights:
        return Check(words, claimed, nothing, f"the weights are {weights}, but the card has {card.weights}")
    clean = read_splits(store.folder("data", cell.data_key))
    try:
        for part, images in read_crafted(store.folder("craft", cell.craft_key)).items():
            _within_budget(images, clean[part].images, cell.threat, cell.attack)
    except BudgetError as error:
        return Check(words, claimed, nothing, str(error))
    facts = store.manifest("rank", cell.rank_key)["facts"]
    found = (float(facts["rank1"]), float(facts["mAP"]))
    allowed = max(TOLERANCE, 100.0 / facts["queries"])
    problems = [
        f"{name} is {new:.2f}, claimed {old:.2f}"
        for name, old, new in zip(_COMPARED, claimed, found, strict=True)
        if not abs(old - new) <= allowed
    ]
    return Check(words, claimed, found, "; ".join(problems))


def _within_budget(images: np.ndarray, clean: np.ndarray, threat: ThreatModel, attack: str) -> None:
    for first in range(0, len(images), 256):
        batch = torch.from_numpy(np.array(images[first : first + 256])).permute(0, 3, 1, 2).float() / 255
        budget.enforce(batch, np.asarray(clean[first : first + 256]), threat, attack=attack, first_index=first)
