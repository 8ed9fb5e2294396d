"""What each kind of step does: it reads its inputs from a workspace and fills one folder."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file

from reid_attack_bench import budget
from reid_attack_bench.adaptive import adapt
from reid_attack_bench.contracts import (
    Batch,
    FitContext,
    Guides,
    State,
    ThreatModel,
    TrainingData,
    Victim,
    to_float,
)
from reid_attack_bench.data import datasets
from reid_attack_bench.data.synthetic import Split
from reid_attack_bench.errors import VictimError
from reid_attack_bench.metrics import images as image_metrics
from reid_attack_bench.metrics.bootstrap import intervals
from reid_attack_bench.metrics.ranking import Ranking, distance_rows, rank, summary, with_misses
from reid_attack_bench.passes import InParts, Note, Reduced, compiled, halving, inference
from reid_attack_bench.plan import Step, weights_digest
from reid_attack_bench.store import replace_file

Facts = dict[str, Any]
"""What a step says of its result in the manifest: plain values."""

Progress = Callable[[int, int, str], None]
_Rows = TypeVar("_Rows", torch.Tensor, "torch.Tensor | None")
_VICTIMS_IN_MEMORY = 24
_EMBED_BATCH = {"cuda": 256, "cpu": 32}  # images per forward pass without gradients; more leave a CPU's caches
_REFUSED = "query_refused"
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # <malloc.h>


@dataclass
class Workspace:
    """Inputs of steps, loaded once and kept while the run needs them.

    `obtain` returns the checked folder of a step's result (and rebuilds it where it is corrupt), `unfinished` the file
    in which a step may keep what it has so far; `note` is told what a person should know.
    """

    obtain: Callable[[str], Path]
    steps: Mapping[str, Step]
    device: torch.device
    unfinished: Callable[[str], Path]
    note: Note = lambda text: None
    _splits: dict[str, dict[str, Split]] = field(default_factory=dict)
    _victims: dict[str, Victim] = field(default_factory=dict)
    _compiled: dict[str, Victim] = field(default_factory=dict)

    def splits(self, key: str) -> dict[str, Split]:
        """The decoded data of one data step, memory-mapped."""
        if key not in self._splits:
            self._splits[key] = read_splits(self.obtain(key))
        return self._splits[key]

    def training_data(self, key: str) -> TrainingData:
        train = self.splits(key)["train"]
        labels = np.unique(train.identities, return_inverse=True)[1].astype(np.int64)
        return TrainingData(str(self.steps[key].config["name"]), train.images, labels, train.cameras)

    def victim(self, key: str) -> Victim:
        """The victim of one victim step: on the device, in eval mode, frozen."""
        if key not in self._victims:
            step = self.steps[key]
            if isinstance(step.subject, Victim):
                victim = step.subject
            else:
                path = self.obtain(key) / "weights.safetensors"
                victim = self.built(step, load_file(path) if path.is_file() else None)
            while len(self._victims) >= _VICTIMS_IN_MEMORY:
                self._victims.pop(next(iter(self._victims)))
            self._victims[key] = victim.to(self.device).eval().requires_grad_(False)
        return self._victims[key]

    def built(self, step: Step, state: State | None) -> Victim:
        """What the recipe or the defence of a victim step makes of its weights."""
        if "victim" in step.inputs:
            inner = self.victim(step.inputs["victim"])
            victim = step.subject.defend(inner, state)
            victim.trained_on = victim.trained_on or inner.trained_on
        else:
            victim = step.subject.load(state)
            victim.trained_on = str(self.steps[step.inputs["data"]].config["name"])
        return victim

    def passes(self, key: str, implementation: Mapping[str, Any]) -> Victim:
        """The victim of one victim step, with the precision and compilation of the step that asks (see suite.Suite)."""
        victim = self.victim(key)
        if implementation.get("compile"):
            if key not in self._compiled:
                label = self.steps[key].label.partition(" ")[2]
                self._compiled[key] = compiled(victim, label, self.device, self.note)
            victim = self._compiled[key]
        return Reduced(victim) if implementation.get("precision") == "bfloat16" else victim

    def source(self, step: Step) -> Victim:
        """The source of `step` as its attack sees it: as it is, or adapted with as many draws as its config says.

        An adapted one is never compiled: what makes it differentiable is done call by call.
        """
        key, samples = step.inputs["source"], step.config.get("adaptive")
        if not samples:
            return self.passes(key, step.implementation)
        victim = self.passes(key, {**step.implementation, "compile": False})
        card = json.loads((self.obtain(key) / "card.json").read_text())
        randomised = card["randomised"] or card.get("found_randomised", False)
        adapted = adapt(victim, samples, randomised=randomised)
        examine(adapted, self.device)
        return adapted


def run(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    """Do one step. Every global random state is seeded with the step's seed first."""
    torch.manual_seed(step.seed)
    np.random.seed(step.seed % 2**32)
    random.seed(step.seed)
    return _RUN[step.kind](step, workspace, out, progress)


def read_splits(folder: Path) -> dict[str, Split]:
    index = load_file(folder / "index.safetensors")
    return {
        part: Split(
            np.load(folder / f"{part}.npy", mmap_mode="r"),
            index[f"{part}.identities"].numpy(),
            index[f"{part}.cameras"].numpy(),
        )
        for part in ("train", "query", "gallery")
    }


def read_ranking(folder: Path) -> Ranking:
    return Ranking(**{name: value.numpy() for name, value in load_file(folder / "ranking.safetensors").items()})


@dataclass(frozen=True)
class _Checkpoint:
    """contracts.Checkpoint in one file."""

    path: Path

    def load(self) -> State | None:
        try:
            return load_file(self.path)
        except (OSError, SafetensorError):
            return None  # none, or cut short by a full disk: the fit starts anew

    def save(self, state: State) -> None:
        replace_file(self.path, save(state))


def _fit_context(step: Step, workspace: Workspace, progress: Progress) -> FitContext:
    checkpoint = _Checkpoint(workspace.unfinished(step.key))
    return FitContext(workspace.device, torch.Generator().manual_seed(step.seed), progress, checkpoint)


def _data(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    splits = step.subject.load(progress, functools.partial(_new_images, out))
    datasets.check(splits, step.subject.name)
    index: State = {}
    for part, split in splits.items():
        index[f"{part}.identities"] = torch.from_numpy(split.identities.astype(np.int64))
        index[f"{part}.cameras"] = torch.from_numpy(split.cameras.astype(np.int64))
    save_file(index, out / "index.safetensors")
    return {
        part: {
            "images": len(split.images),
            "identities": len(np.unique(split.identities)),
            "cameras": len(np.unique(split.cameras)),
        }
        for part, split in splits.items()
    }


def _new_images(folder: Path, part: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.lib.format.open_memmap(folder / f"{part}.npy", mode="w+", dtype=np.uint8, shape=shape)


def _victim(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    subject = step.subject
    if isinstance(subject, Victim):
        victim = subject
    else:
        state = None
        if hasattr(subject, "fit"):
            inner = [workspace.victim(step.inputs["victim"])] if "victim" in step.inputs else []
            data = workspace.training_data(step.inputs["data"])
            state = subject.fit(*inner, data, _fit_context(step, workspace, progress))
            save_file(state, out / "weights.safetensors")
            workspace.unfinished(step.key).unlink(missing_ok=True)
        victim = workspace.built(step, state)
    victim = victim.to(workspace.device).eval().requires_grad_(False)
    found = examine(victim, workspace.device)
    card = {
        "name": victim.name or type(victim).__name__,
        "distance": victim.distance,
        "input_size": list(victim.input_size),
        "randomised": victim.randomised,
        "differentiable": victim.differentiable,
        "defence": victim.defence,
        "citation": victim.citation,
        "weights": weights_digest(victim),
        **found,
    }
    (out / "card.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n")
    return card


def examine(victim: Victim, device: torch.device) -> Facts:
    """Hold a victim against its contract on two random images.

    Returns:
        What it was found to be: "found_randomised", two passes differ; "detector", empty without one, "suspicion" for
        one that an attack can climb down, else "rejects"; "zero_gradient", the share of the images' values without
        any gradient.

    Raises:
        VictimError: wrong shape or type, not finite, or no gradient though it declares to be differentiable.
    """
    name = victim.name or type(victim).__name__
    if victim.distance not in ("euclidean", "cosine"):
        raise VictimError(f"victim {name}: distance must be euclidean or cosine, not {victim.distance!r}")
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, *victim.input_size, generator=generator).to(device).requires_grad_(True)
    embeddings = embed(victim, images, name)
    with torch.no_grad():
        again = embed(victim, images, name)
    found: Facts = {"found_randomised": bool((again - embeddings).abs().max() > 1e-3 * embeddings.abs().max())}
    suspicion = victim.suspicion(images)
    climbable = suspicion is not None and suspicion.requires_grad
    found["detector"] = "suspicion" if climbable else "" if victim.rejects(images.detach()) is None else "rejects"
    if not victim.differentiable:
        return found
    if not embeddings.requires_grad:
        raise VictimError(
            f"victim {name}: its embeddings carry no gradient (a detach, no_grad or numpy on the way?); keep it "
            "differentiable, or declare differentiable = False to have it as a target only"
        )
    # along a random direction: the length of a normalised embedding never changes
    direction = torch.randn(embeddings.shape, generator=generator).to(embeddings)
    (gradient,) = torch.autograd.grad((embeddings * direction).sum(), images, allow_unused=True)
    if gradient is None or not torch.isfinite(gradient).all():
        what = "no gradient reaches the images" if gradient is None else "the gradient is NaN or infinite"
        raise VictimError(f"victim {name}: {what}; repair embed, or declare differentiable = False")
    logits = victim.logits(images)
    if logits is not None and (logits.ndim != 2 or len(logits) != 2):
        raise VictimError(f"victim {name}: logits returned shape {tuple(logits.shape)} for 2 images, expected 2×K")
    return {**found, "zero_gradient": float((gradient == 0).float().mean())}


def embed(victim: Victim, images: torch.Tensor, name: str, first_index: int = 0) -> torch.Tensor:
    """`victim.embed`, checked: N×D, floating point, finite."""
    embeddings = victim.embed(images)
    if not isinstance(embeddings, torch.Tensor) or embeddings.ndim != 2 or len(embeddings) != len(images):
        got = tuple(embeddings.shape) if isinstance(embeddings, torch.Tensor) else type(embeddings).__name__
        raise VictimError(f"victim {name}: embed returned {got} for {len(images)} images, expected {len(images)}×D")
    if not embeddings.is_floating_point():
        raise VictimError(f"victim {name}: embed returned {embeddings.dtype}, expected a floating-point tensor")
    bad = ~torch.isfinite(embeddings).all(dim=1)
    if bad.any():
        raise VictimError(
            f"victim {name}: embed returned NaN or infinity for image {first_index + int(bad.nonzero()[0])}"
        )
    return embeddings


def _embed_all(
    victim: Victim, images: np.ndarray, label: str, device: torch.device, progress: Progress, note: Note
) -> torch.Tensor:
    seen: set[torch.Size] = set()

    def embedded(first: int, count: int) -> torch.Tensor:
        batch = to_float(images[first : first + count], device)
        with inference(seen, batch):
            return embed(victim, batch, label, first).float().cpu()

    return _in_batches(embedded, len(images), label, device, progress, note)


def _in_batches(
    work: Callable[[int, int], _Rows], total: int, label: str, device: torch.device, progress: Progress, note: Note
) -> _Rows:
    """`work(first, count)` of all images, as many at once as the device is good for and its memory holds.

    None where it is None for the first.
    """
    size, parts, done = _EMBED_BATCH[device.type], [], 0
    while done < total:
        part, size = halving(functools.partial(work, done), size, label, note)
        if part is None:
            return part
        parts.append(part)
        done += len(part)
        progress(done, total, "")
    return torch.cat(parts)


def _embed_sides(
    victim: Victim,
    images: Mapping[str, np.ndarray],
    label: str,
    device: torch.device,
    progress: Progress,
    note: Note,
) -> State:
    """Embeddings of each part, and which queries the victim refuses, where it has a detector."""
    features = {part: _embed_all(victim, values, label, device, progress, note) for part, values in images.items()}
    refused = _refusals(victim, images["query"], label, device, note) if "query" in images else None
    return features if refused is None else {**features, _REFUSED: refused}


def _refusals(
    victim: Victim, images: np.ndarray, label: str, device: torch.device, note: Note = lambda text: None
) -> torch.Tensor | None:
    def refusals(first: int, count: int) -> torch.Tensor | None:
        batch = to_float(images[first : first + count], device)
        with torch.no_grad():
            refused = victim.rejects(batch)
        if refused is None:
            return None
        if not isinstance(refused, torch.Tensor) or refused.dtype != torch.bool or refused.shape != batch.shape[:1]:
            raise VictimError(f"victim {label}: rejects must return a bool tensor of {len(batch)} for as many images")
        return refused.cpu()

    return _in_batches(refusals, len(images), label, device, lambda done, total, text: None, note)


def _clean(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    victim = workspace.passes(step.inputs["victim"], step.implementation)
    splits = workspace.splits(step.inputs["data"])
    label = workspace.steps[step.inputs["victim"]].label
    images = {part: splits[part].images for part in ("query", "gallery")}
    features = _embed_sides(victim, images, label, workspace.device, progress, workspace.note)
    save_file(features, out / "features.safetensors")
    return {"dimensions": features["query"].shape[1]}


def _clean_rank(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    features = load_file(workspace.obtain(step.inputs["features"]) / "features.safetensors")
    facts = _rank_features(step, workspace, out, features["query"], features["gallery"], features.get(_REFUSED))
    expected = float(step.config["expected_rank1"])
    if facts["rank1"] < expected:
        label = workspace.steps[step.inputs["victim"]].label
        raise VictimError(
            f"{label}: clean Rank-1 is {facts['rank1']:.1f} %, below the expected {expected:.1f} %; a victim that did "
            "not learn says nothing about attacks: train longer, or change the seed or expected_rank1 in the suite"
        )
    return facts


def _rank_features(
    step: Step,
    workspace: Workspace,
    out: Path,
    query: torch.Tensor,
    gallery: torch.Tensor,
    missed: torch.Tensor | None,
) -> Facts:
    """Rank and store; the queries `missed`, bool N, are refused and find nobody."""
    splits = workspace.splits(step.inputs["data"])
    distance = workspace.victim(step.inputs["victim"]).distance
    ranking = rank(
        distance_rows(query.to(workspace.device), gallery.to(workspace.device), distance),
        splits["query"].identities,
        splits["gallery"].identities,
        splits["query"].cameras,
        splits["gallery"].cameras,
        protocol=step.config["protocol"],
        rng=np.random.RandomState(0),
    )
    if missed is not None:
        ranking = with_misses(ranking, missed.numpy(), len(gallery))
    arrays = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in vars(ranking).items()}
    save_file(arrays, out / "ranking.safetensors")
    columns = np.stack([ranking.hits[:, 0], ranking.ap], axis=1)[ranking.valid]
    bounds: dict[str, float] = {}
    for name, (low, high) in zip(("rank1", "mAP"), intervals(columns, seed=0), strict=True):
        bounds |= {f"{name}_low": 100.0 * low, f"{name}_high": 100.0 * high}
    return {**summary(ranking), **bounds, "queries": int(ranking.valid.sum())}


def _fit(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    source = workspace.source(step)
    data = workspace.training_data(step.inputs["data"])
    state = step.subject.fit(source, data, _threat(step), _fit_context(step, workspace, progress))
    save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, out / "state.safetensors")
    workspace.unfinished(step.key).unlink(missing_ok=True)
    return {}


def _threat(step: Step) -> ThreatModel:
    return ThreatModel(**step.config["threat"])


def _craft(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    attack, threat = step.subject, _threat(step)
    source = workspace.source(step) if "source" in step.inputs else None
    splits = workspace.splits(step.inputs["data"])
    learned = {}
    if "fit" in step.inputs:
        state = load_file(workspace.obtain(step.inputs["fit"]) / "state.safetensors")
        learned = {"state": {name: value.to(workspace.device) for name, value in state.items()}}
    generator = torch.Generator().manual_seed(step.seed)
    parts = ("query", "gallery") if threat.perturbs == "both" else (threat.perturbs,)
    size = at_once = int(step.implementation["batch_size"])
    for part in parts:
        split = splits[part]
        other = splits["gallery" if part == "query" else "query"]
        guides = Guides(other.images, other.identities, other.cameras) if "gallery" in attack.needs else None
        stored = _new_images(out, part, split.images.shape)
        for first in range(0, len(split.images), size):
            clean = np.asarray(split.images[first : first + size])
            labels = torch.from_numpy(split.identities[first : first + size]) if "labels" in attack.needs else None
            batch = Batch(to_float(clean, workspace.device), labels, guides)
            crafted = functools.partial(
                _crafted, attack, source, batch, threat, generator, generator.get_state(), learned
            )
            adversarial, at_once = halving(crafted, at_once, step.label, workspace.note)
            stored[first : first + size] = budget.enforce(
                adversarial, clean, threat, attack=str(step.config["attack"]), first_index=first
            )
            progress(first + len(clean), len(split.images), "")
    return {}


def _crafted(
    attack: Any,
    source: Victim | None,
    batch: Batch,
    threat: ThreatModel,
    generator: torch.Generator,
    drawn: torch.Tensor,
    learned: Mapping[str, State],
    at_once: int,
) -> torch.Tensor:
    """One batch. It stays whole, so that the attack draws the same numbers; the source sees `at_once` images of it."""
    generator.set_state(drawn)
    seen = source if source is None or at_once >= len(batch.images) else InParts(source, at_once)
    adversarial: torch.Tensor = attack.craft(seen, batch, threat, generator, **learned)
    return adversarial


def read_crafted(folder: Path) -> dict[str, np.ndarray]:
    """The perturbed sides of one craft: part → uint8 N×H×W×3, memory-mapped."""
    return {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}


def _measure(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    splits = workspace.splits(step.inputs["data"])
    crafted = read_crafted(workspace.obtain(step.inputs["craft"]))
    columns: dict[str, list[np.ndarray]] = {}
    weights = image_metrics.find_lpips_weights() if step.implementation["lpips"] else None
    lpips = image_metrics.Lpips(weights, workspace.device) if weights else None
    for part, adversarial in crafted.items():
        size = image_metrics.batch_size(adversarial, workspace.device)
        for first in range(0, len(adversarial), size):
            pair = splits[part].images[first : first + size], adversarial[first : first + size]
            for name, values in image_metrics.measures(*pair, workspace.device, lpips).items():
                columns.setdefault(name, []).append(values)
            progress(first + len(pair[0]), len(adversarial), "")
    measures = {name: np.concatenate(values).astype(np.float64) for name, values in columns.items()}
    save_file({name: torch.from_numpy(values) for name, values in measures.items()}, out / "measures.safetensors")
    return {name: float(values.mean()) for name, values in measures.items()}


def _features(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    victim = workspace.passes(step.inputs["victim"], step.implementation)
    label = workspace.steps[step.inputs["victim"]].label
    crafted = read_crafted(workspace.obtain(step.inputs["craft"]))
    features = _embed_sides(victim, crafted, label, workspace.device, progress, workspace.note)
    save_file(features, out / "features.safetensors")
    return {}


def _rank(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    clean = load_file(workspace.obtain(step.inputs["clean"]) / "features.safetensors")
    attacked = load_file(workspace.obtain(step.inputs["features"]) / "features.safetensors")
    both = {**clean, **attacked}
    refused = attacked.get(_REFUSED)
    if refused is None:
        return _rank_features(step, workspace, out, both["query"], both["gallery"], clean.get(_REFUSED))
    # a refused adversarial query counts as its clean self
    query = torch.where(refused[:, None], clean["query"], both["query"])
    facts = _rank_features(step, workspace, out, query, both["gallery"], refused & clean[_REFUSED])
    return {**facts, "rejected": 100.0 * float(refused.float().mean())}


_RUN: dict[str, Callable[[Step, Workspace, Path, Progress], Facts]] = {
    "data": _data,
    "victim": _victim,
    "clean": _clean,
    "clean-rank": _clean_rank,
    "fit": _fit,
    "craft": _craft,
    "measure": _measure,
    "features": _features,
    "rank": _rank,
}


def use_deterministic_kernels() -> None:
    """Ask torch and cuBLAS for deterministic kernels; an operation without one warns instead of failing."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # a guard against reading what was never written, which costs a pass over memory
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks instead of giving them back: a third off the training of small networks on a CPU.

    Elsewhere it does nothing. Processes forked later inherit it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((_M_MMAP_THRESHOLD, 2**30), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**28)):
            mallopt(parameter, value)
