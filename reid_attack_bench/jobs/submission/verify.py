"""Verify a submission: what it claims is made again from its images, and some of its images are crafted again.

Every claim is recomputed: clean data are rendered or loaded here, all images are checked against their budgets,
embedded, ranked and measured, and all tables are made from that. The first batch of every craft that can be made here
is crafted again, and of each attack a sample of crafts whole.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from reid_attack_bench.adversary import budget
from reid_attack_bench.contracts import unbound, weights_digest
from reid_attack_bench.errors import BenchError, BudgetError
from reid_attack_bench.execute.device import default_threads, settings_for_a_run
from reid_attack_bench.execute.events import Listener, Outcome
from reid_attack_bench.execute.executor import execute
from reid_attack_bench.execute.runner import Runner
from reid_attack_bench.execute.surroundings import where
from reid_attack_bench.jobs import manifest
from reid_attack_bench.jobs.submission.archive import MATRIX
from reid_attack_bench.jobs.submission.images import (
    IMAGES,
    STRENGTH,
    Again,
    Taken,
    crafted_again,
    images_in_batches,
    trained_in,
    why_not_again,
)
from reid_attack_bench.jobs.submission.opened import Submission, opened
from reid_attack_bench.jobs.submission.tables import (
    Table,
    description,
    differences,
    number_in,
    read_table,
    tables_of,
    without_lpips,
)
from reid_attack_bench.jobs.submission.trusted import Given
from reid_attack_bench.metrics.lpips import find_lpips_weights
from reid_attack_bench.plan.plan import Cell
from reid_attack_bench.report.collect import collect
from reid_attack_bench.report.record import RunRecord
from reid_attack_bench.report.results import NOT_APPLICABLE, Results
from reid_attack_bench.steps.artefacts import read_crafted, read_splits
from reid_attack_bench.steps.step import Step


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


@dataclass(frozen=True)
class Verified:
    """What verification found.

    Attributes:
        checks: one per cell.
        problems: what else does not hold, one line each.
        again: crafts that were made again.
        seed: of the sample of crafts that were made whole.
        unverified: what was not verified, one line each.
        results: of the victim, as recomputed.
    """

    checks: tuple[Check, ...]
    problems: tuple[str, ...]
    again: tuple[Again, ...]
    seed: int
    unverified: tuple[str, ...]
    results: Results

    @property
    def wrong(self) -> list[str]:
        """Everything that does not hold."""
        return [*(f"{check.cell}: {check.problem}" for check in self.checks if check.problem), *self.problems]


# size: what a caller gives and how it is run
def verify(
    path: Path,
    *,
    given: Given,
    sample: int = 1,
    seed: int | None = None,
    data_root: Path | None,
    device: torch.device,
    listener: Listener,
) -> Verified:
    """Recompute the claims of a submission.

    Args:
        path: the submission.
        given: the plug-ins and files that may be read. Their code is run: read it first.
        sample: number of crafts of each attack that are made again whole.
        seed: seed of that sample; by default from the digest of the file, which is known once it is finished.

    Raises:
        BenchError: the submission cannot be read, is of another model, or its parts do not belong together.
    """
    with opened(path, given, data_root) as submission:
        return verified(submission, device, listener, sample, seed)


def verified(
    submission: Submission, device: torch.device, listener: Listener, sample: int = 1, seed: int | None = None
) -> Verified:
    """`verify` of an opened submission, whose store holds the results afterwards.

    What is cheap comes first, and what follows from what does not hold is not made.
    """
    seed = int(submission.digest[:15], 16) if seed is None else seed
    submission.store.prepare()
    runner = Runner(submission.plan.steps, submission.store, device, listener)
    over: dict[str, str] = {}
    again: tuple[Again, ...] = ()
    with settings_for_a_run(default_threads(device)), _in_one_line(submission.path):
        problems = _taken_weights(submission, runner)
        if not problems:
            over = _taken_images(submission, runner)
        if not problems and not over:
            again = tuple(_again(submission, runner, sample, seed))
            problems = [_apart(each) for each in again if not each.holds]
            problems += [f"the cost of '{each.step.label}': {each.cost}" for each in again if each.cost]
    outcome = Outcome()
    if problems or over:
        results = collect(replace(_record(submission, outcome), cells=(), clean=()), submission.store)
        checks = [_exceeding(cell, over[cell.craft_key]) for cell in submission.cells if cell.craft_key in over]
    else:
        outcome = _made(submission, device, listener)
        results = collect(_record(submission, outcome), submission.store)
        checks, problems = compared(submission.tables, tables_of(results, submission.label))
        problems += [f"made again, a step failed: {cause}" for cause in outcome.causes]
    unverified = (*submission.unsaid, *_unverified(submission, runner, again))
    return Verified(tuple(checks), tuple(problems), again, seed, unverified, results)


@contextlib.contextmanager
def _in_one_line(path: Path) -> Iterator[None]:
    """Context for what a stranger brings and plug-ins do with it, which may raise anything."""
    try:
        yield
    except BenchError:
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise BenchError(f"{path} cannot be verified: {where(error)}{type(error).__name__}: {words}") from error


def _taken_weights(submission: Submission, runner: Runner) -> list[str]:
    """Put the weights of trained victims into the store; what is wrong with those of the submitted one."""
    taken = Taken(submission.archive, runner)
    for step in _trained(submission):
        taken.weights(step)
    found, problems = weights_digest(unbound(runner.workspace.victim(submission.victim_key))), []
    if found != submission.card.weights:
        problems.append(f"the weights are {found}, but the card has {submission.card.weights}")
    return problems


def _taken_images(submission: Submission, runner: Runner) -> dict[str, str]:
    """Put the images into the store; craft key → how they exceed their budget, or are no attack at all."""
    taken, plan = Taken(submission.archive, runner), submission.plan
    over: dict[str, str] = {}
    cells = {cell.craft_key: cell for cell in submission.cells if cell.craft_key}
    for key, cell in cells.items():
        taken.images(plan.steps[key], cell, plan.suite.image_size)
        clean, changed = read_splits(runner.obtain(cell.data_key)), False
        try:
            for part, images in read_crafted(submission.store.folder("craft", key)).items():
                for first, batch, before in images_in_batches(images, clean[part].images):
                    found = budget.enforce(batch, before, cell.threat, attack=cell.attack, first_index=first)
                    changed = changed or bool((found != before).any())
        except BudgetError as error:
            over[key] = str(error)
        if not changed and cell.threat.epsilon and why_not_again(plan.steps[key], runner.steps, submission.store):
            over.setdefault(key, "its images are the clean ones")
    return over


def _trained(submission: Submission) -> list[Step]:
    """The submitted victim and those that it is made of, if the bench trained them, in the order of the plan."""
    steps = submission.plan.steps
    return [steps[each.key] for each in trained_in(steps[submission.victim_key])][::-1]


def _again(submission: Submission, runner: Runner, sample: int, seed: int) -> Iterator[Again]:
    """Craft again: of each attack a sample whole, of the others the first batch."""
    rng = np.random.default_rng(seed)
    steps: dict[str, dict[str, Step]] = {}
    for cell in submission.cells:
        if cell.craft_key:
            step = submission.plan.steps[cell.craft_key]
            if not why_not_again(step, runner.steps, submission.store):
                steps.setdefault(cell.attack, {})[step.key] = step
    for _, mine in sorted(steps.items()):
        keys = sorted(mine)
        whole = {keys[i] for i in rng.choice(len(keys), min(sample, len(keys)), replace=False)}
        for key in keys:
            runner.listener.note(f"crafting again: {mine[key].label}")
            yield crafted_again(mine[key], runner, whole=key in whole)


def _made(submission: Submission, device: torch.device, listener: Listener) -> Outcome:
    """Make everything that the tables of the victim are made from."""
    plan = submission.plan
    keys = [key for cell in submission.cells for key in (cell.measure_key, cell.rank_key) if key]
    for row in plan.clean:
        if row.victim == submission.label:
            keys += [submission.victim_key, row.rank_key, *row.figure_keys, row.check_key]
    return execute(replace(plan, wanted=tuple(dict.fromkeys(keys))), submission.store, device, listener)


def _record(submission: Submission, outcome: Outcome) -> RunRecord:
    """The record of the submitted run, of its victim alone."""
    plan, rows = submission.plan, manifest.rows_of(submission.plan)
    used = {value for cell in submission.cells for name, value in vars(cell).items() if name.endswith("_key")}
    used.add(submission.victim_key)
    return replace(
        submission.record,
        finished=True,
        store="",
        notes=tuple(manifest.notes(plan, outcome)),
        failures=dict(outcome.failed),
        rebuilt=(),
        files=(),
        clean=rows["clean"],
        cells=tuple(cell for cell in rows["cells"] if cell.target == submission.label),
        steps=tuple(step for step in submission.record.steps if step.key in used),
        datasets=rows["datasets"],
    )


def compared(claimed: Mapping[str, Table], made: Mapping[str, str]) -> tuple[list[Check], list[str]]:
    """One check per row of matrix.csv, and what does not hold in the other tables.

    Args:
        claimed: submitted tables by file name.
        made: those that were made again, as CSV.
    """
    checks: list[Check] = []
    problems: list[str] = []
    for name, text in made.items():
        old, new = without_lpips(claimed[name], read_table(text.encode(), name))
        apart = dict(differences(old, new, name))
        problems += [problem for row, problem in apart.items() if name != MATRIX or row < 0]
        if name == MATRIX:
            pairs = zip(old.rows, new.rows, strict=False)
            checks = [_check(before, after, apart.get(i, "")) for i, (before, after) in enumerate(pairs)]
    return checks, problems


def _check(claimed: Mapping[str, str], found: Mapping[str, str], problem: str) -> Check:
    words = f"{found['attack']} ε = {found['epsilon']} from {found['source'] or 'no source'} on {found['dataset']}"
    status = found["status"]
    if not problem and status != "ok" and not status.startswith(NOT_APPLICABLE):
        problem = f"it could not be made again: {status}"
    pairs = [(number_in(row["rank1"]), number_in(row["mAP"])) for row in (claimed, found)]
    return Check(words, pairs[0], pairs[1], problem)


def _exceeding(cell: Cell, problem: str) -> Check:
    nothing = (math.nan, math.nan)
    return Check(description(cell), nothing, nothing, problem)


def _apart(again: Again) -> str:
    return (
        f"the images of '{again.step.label}' are not those that it makes: of {again.images[0]} that were crafted "
        f"again, {again.share:.0%} are the same or as strong ({IMAGES:.0%} must be), and they move the embedding of "
        f"the source {again.strength:.2f} times as far ({STRENGTH} at least)"
    )


def _unverified(submission: Submission, runner: Runner, again: Sequence[Again]) -> Iterator[str]:
    """What holds or does not, nobody has looked: one line each."""
    reasons: dict[str, list[str]] = {}
    for key in dict.fromkeys(cell.craft_key for cell in submission.cells if cell.craft_key):
        step = submission.plan.steps[key]
        reason = why_not_again(step, runner.steps, submission.store)
        if reason:
            reasons.setdefault(reason, []).append(step.label)
    for reason, labels in reasons.items():
        yield f"the strength of the images of {len(labels)} crafts ({_some(labels)}): {reason}"
    random = [each.step.label for each in again if each.stochastic]
    if random:
        yield f"the strength of the images of {_some(random)}: they differ each time they are crafted"
    part = [each for each in again if each.images[0] < each.images[1] and not each.stochastic]
    if part:
        yield f"all but the first {part[0].images[0]} images of {len(part)} crafts: crafted again in part (--sample)"
    if len(again) < len(submission.cells) or part:
        yield "the cost of crafting (passes, queries), where images were not crafted again whole"
    if _trained(submission):
        yield f"that the weights of {submission.label} come from its training: they are taken as they are"
    if not find_lpips_weights():
        yield "lpips: its weights are not on this machine"
    yield "what card and manifest say in words, and of times, versions and machines"


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:2]) + (f" and {len(labels) - 2} more" if len(labels) > 2 else "")
