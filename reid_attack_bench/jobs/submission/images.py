"""What is taken from a submission as it is, adversarial images and trained weights, and crafting some of it again.

All else in the store of a submission is made anew: a stranger's manifests decide nothing but the cost of crafting.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from reid_attack_bench.contracts import Victim, to_float
from reid_attack_bench.errors import BenchError, VictimError
from reid_attack_bench.execute.runner import Runner
from reid_attack_bench.execute.surroundings import undisturbed
from reid_attack_bench.jobs.submission.archive import Archive, place
from reid_attack_bench.plan.plan import Cell
from reid_attack_bench.steps import kinds
from reid_attack_bench.steps.artefacts import TARGETS, read_crafted, read_targets, write_targets
from reid_attack_bench.steps.craft import first_batch, targets_of
from reid_attack_bench.steps.data import source_of
from reid_attack_bench.steps.step import Step, source_keys
from reid_attack_bench.steps.victim import described
from reid_attack_bench.store import Store

EQUAL = 0.8
"""Smallest share of equal values, of those that an attack changes, in an image that is the same when crafted again."""

AS_STRONG = 0.7
"""An image that is not the same moves the embedding of the source at least this share as far."""

IMAGES = 0.9
"""Smallest share of images that are the same or as strong."""

STRENGTH = 0.95
"""Smallest ratio of how far all images move the embedding of the source.

On one machine all values are equal. Between instruction sets (SSE4.1, AVX2, AVX-512), 20 steps on ResNet-18 leave 15 to
57 % of the values equal, since small differences grow, but the ratio is 0.98 or more, and 0.76 or more of each image. A
perturbation of half the size has 0.35 at most, and noise 0.54.
"""

COST = 0.1
"""Largest relative difference between the cost of crafting and the one that is claimed."""

_COSTS = ("forward_passes", "backward_passes", "queries")

_ROWS = 32
"""Images that are embedded at once."""

_WEIGHTS = 2**34
"""Largest file of weights in bytes, 16 GiB."""


def expected_files(steps: Mapping[str, Step], cells: Iterable[Cell]) -> set[str]:
    """Names in the archive of the images that `cells` need."""
    return {
        place("craft", cell.craft_key, f"{part}.npy") for cell in cells if cell.craft_key for part in cell.threat.sides
    }


@dataclass(frozen=True)
class Taken:
    """Puts what a submission brings into a store that has nothing else of it.

    Attributes:
        archive: the submission.
        runner: of the plan's steps, for the store.
    """

    archive: Archive
    runner: Runner

    @property
    def store(self) -> Store:
        return self.runner.store

    def weights(self, step: Step) -> None:
        """The weights of a victim that the bench trained; its card is what the model on this machine shows.

        Raises:
            BenchError: they are missing or damaged, or do not fit.
        """
        name, device = place("victim", step.key, "weights.safetensors"), self.runner.workspace.device
        with self.store.write("victim", step.key, manifest := _manifest(step)) as folder:
            path = folder / "weights.safetensors"
            self.archive.extract(name, path, _WEIGHTS)
            try:
                victim: Victim = self.runner.workspace.built(step, load_file(path))
                victim = victim.to(device).eval().requires_grad_(False)
                card = described(victim, device)
            except (VictimError, SafetensorError, OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
                words = " ".join(str(error).split())[:200]
                raise BenchError(f"{self.archive.path}: {name} does not make a {step.about}: {words}") from error
            (folder / "card.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            manifest["facts"] = card

    def images(self, step: Step, cell: Cell, size: tuple[int, int]) -> None:
        """The adversarial images of one craft step of `size` (height, width); their targets are chosen again.

        Raises:
            BenchError: they are missing, damaged, or of another type or shape.
        """
        counts = source_of(step.parents["data"]).counts
        with self.store.write("craft", step.key, manifest := _manifest(step)) as folder:
            for part in cell.threat.sides:
                shape = (counts[part], *size, 3)
                name, path = place("craft", step.key, f"{part}.npy"), folder / f"{part}.npy"
                self.archive.extract(name, path, math.prod(shape) + 4096)
                _check_array(path, shape, f"{self.archive.path}: {name}")
            if cell.threat.impersonate:
                write_targets(folder, self._targets(step, counts["query"], folder))
            manifest["facts"] = self._costs(step)

    def _targets(self, step: Step, queries: int, folder: Path) -> np.ndarray:
        """Whom the queries are to become: chosen again, or as submitted where the source is not here."""
        if not why_not_again(step, self.runner.steps, self.store):
            chosen = targets_of(step, self.runner.workspace)
            assert chosen is not None
            return chosen
        name = place("craft", step.key, TARGETS)
        self.archive.extract(name, folder / TARGETS, 8 * queries + 4096)
        try:
            found = read_targets(folder)
        except (SafetensorError, OSError, KeyError) as error:
            raise BenchError(f"{self.archive.path}: {name} is damaged: {error}") from error
        if found.dtype != np.int64 or found.shape != (queries,):
            raise BenchError(f"{self.archive.path}: {name} is not of {queries} queries")
        return found

    def _costs(self, step: Step) -> dict[str, float]:
        """What the submission says of the passes of an attack. Nothing else in its manifest is used."""
        name = place("craft", step.key, "manifest.json")
        if name not in self.archive.sizes:
            return {}
        try:
            facts = json.loads(self.archive.read(name))["facts"]
            found = {each: float(facts[each]) for each in _COSTS if each in facts}
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
            raise BenchError(f"{self.archive.path}: {name} is damaged: {type(error).__name__}") from error
        if any(not 0 <= value < 1e12 for value in found.values()):
            raise BenchError(f"{self.archive.path}: {name} has a cost that is no number of passes")
        return found


def _manifest(step: Step) -> dict[str, Any]:
    return {**step.record, "facts": {}, "seconds": 0.0}


def _check_array(path: Path, shape: tuple[int, ...], where: str) -> None:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        right = isinstance(found, np.ndarray) and found.dtype == np.uint8 and found.shape == shape
    except Exception as error:  # NumPy evaluates the header, and raises what its parser raises
        raise BenchError(f"{where} is damaged: {' '.join(str(error).split())[:200]}") from error
    if not right:
        raise BenchError(f"{where} holds {found.dtype} {found.shape}, expected uint8 {shape}")
    if not found.flags["C_CONTIGUOUS"] or path.stat().st_size != found.offset + found.nbytes:
        raise BenchError(f"{where} holds more than its {found.nbytes:,} bytes of images, or in another order")


def why_not_again(step: Step, steps: Mapping[str, Step], known: Store) -> str:
    """Why the images of a craft step cannot be crafted again from what is here; empty if they can."""
    if "fit" in step.inputs:
        return "the attack was learned in the run, and what it learned is not in the file"
    for key in source_keys(step):
        missing = next((each for each in trained_in(steps[key]) if not known.has("victim", each.key)), None)
        if missing is not None:
            return f"its source {missing.about} was trained in the run, and is not in the file"
    return ""


def trained_in(victim: Step) -> Iterator[Step]:
    """The victim steps that train among a victim and those that it is made of, from the outermost."""
    if victim.action == "train":
        yield victim
    if "victim" in victim.parents:
        yield from trained_in(victim.parents["victim"])


@dataclass(frozen=True)
class Again:
    """Images of a craft step beside those that are made here.

    Attributes:
        step: the craft step.
        images: number of images compared, of all.
        share: of images that are the same or as strong, see IMAGES.
        strength: ratio of how far they move the embedding of the source, see STRENGTH; 1 if all are the same.
        stochastic: two that were made here agree no better.
        cost: what the submission says of the cost of crafting, where that is another; empty if it holds or is unknown.
    """

    step: Step
    images: tuple[int, int]
    share: float
    strength: float
    stochastic: bool = False
    cost: str = ""

    @property
    def holds(self) -> bool:
        return self.stochastic or _hold(self.share, self.strength)


def _hold(share: float, strength: float) -> bool:
    return share >= IMAGES and strength >= STRENGTH


def crafted_again(step: Step, runner: Runner, *, whole: bool) -> Again:
    """Craft the images of a step again, its first batch or all, and compare them with those in the store."""
    given = {name: np.asarray(images) for name, images in read_crafted(runner.store.folder("craft", step.key)).items()}
    found, facts = _made(step, runner, whole=whole)
    clean = {part: np.asarray(split.images) for part, split in runner.workspace.splits(step.inputs["data"]).items()}
    alike = _Alike(clean, [runner.workspace.victim(key) for key in source_keys(step)], runner.workspace.device)
    share, strength = alike.compared(found, given)
    stochastic = False
    if not _hold(share, strength):
        stochastic = not _hold(*alike.compared(found, _made(step, runner, whole=whole)[0]))
    cost = _other_cost(runner.store.manifest("craft", step.key)["facts"], facts) if whole and not stochastic else ""
    images = (sum(map(len, found.values())), sum(map(len, given.values())))
    return Again(step, images, share, strength, stochastic, cost)


def _other_cost(claimed: Mapping[str, float], found: Mapping[str, float]) -> str:
    for name in sorted({*claimed, *found}):
        old, new = claimed.get(name, 0.0), found.get(name, 0.0)
        if abs(old - new) > COST * max(abs(new), 1.0):  # an attack may stop early, and elsewhere a little later
            return f"{name} per image are {new:.2f}, claimed {old:.2f}"
    return ""


def _made(step: Step, runner: Runner, *, whole: bool) -> tuple[dict[str, np.ndarray], Mapping[str, float]]:
    """Adversarial images by part, and the cost of crafting, where all are made."""
    with _temporary(runner.store) as folder, undisturbed():
        if not whole:
            kinds.seed(step)
            part, images = first_batch(step, runner.workspace)
            return {part: images}, {}
        facts = kinds.run(step, runner.workspace, folder, lambda done, total, note: None)
        return {part: np.array(images) for part, images in read_crafted(folder).items()}, facts


@contextmanager
def _temporary(store: Store) -> Iterator[Path]:
    folder = store.root / "again"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@dataclass(frozen=True)
class _Alike:
    """Compares adversarial images of the `clean` ones, part → uint8 N×H×W×3, for an attack on `sources`."""

    clean: Mapping[str, np.ndarray]
    sources: Sequence[Victim]
    device: torch.device

    def compared(self, found: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> tuple[float, float]:
        """Share of images that are the same or as strong, and ratio of strengths; of as many images as `found` has."""
        same, moved = [], []
        for part, images in found.items():
            other, before = given[part][: len(images)], self.clean[part][: len(images)]
            touched = (images != before) | (other != before)
            changed, equal = (
                each.reshape(len(images), -1).sum(axis=1) for each in (touched, touched & (images == other))
            )
            same.append(equal >= EQUAL * changed)
            if not same[-1].all() and self.sources:
                moved.append(np.stack([self._moved(each, before) for each in (images, other)]))
            else:
                moved.append(np.ones((2, len(images))))
        as_found, as_given = np.concatenate(moved, axis=1)
        alike = np.concatenate(same)
        if self.sources:
            alike = alike | (as_given >= AS_STRONG * as_found)
        return float(alike.mean()), float(as_given.sum() / max(as_found.sum(), 1e-12))

    def _moved(self, images: np.ndarray, clean: np.ndarray) -> np.ndarray:
        """How far each image moves its embedding, in the mean over the sources: N."""
        rows = []
        for first in range(0, len(images), _ROWS):
            batch, before = (to_float(np.asarray(each[first : first + _ROWS]), self.device) for each in (images, clean))
            with torch.no_grad():
                apart = [
                    source.compare(source.embed(batch), source.embed(before)).diagonal() for source in self.sources
                ]
            rows.append(torch.stack(apart).mean(dim=0).double().cpu().numpy())
        return np.maximum(np.concatenate(rows), 0.0)


def images_in_batches(images: np.ndarray, clean: np.ndarray) -> Iterator[tuple[int, torch.Tensor, np.ndarray]]:
    """(index of the first image, images N×3×H×W in [0, 1], clean images uint8) in batches."""
    for first in range(0, len(images), 256):
        batch = torch.from_numpy(np.array(images[first : first + 256])).permute(0, 3, 1, 2).float() / 255
        yield first, batch, np.asarray(clean[first : first + 256])
