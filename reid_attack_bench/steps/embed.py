"""Steps clean and features: embeddings of clean images and of adversarial images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import save_file

from reid_attack_bench.checks.embed import embed
from reid_attack_bench.contracts import State, Victim, to_float
from reid_attack_bench.errors import VictimError
from reid_attack_bench.steps.artefacts import REFUSED, read_crafted
from reid_attack_bench.steps.data import images_attacked
from reid_attack_bench.steps.passes import Note, inference, with_smaller_batches
from reid_attack_bench.steps.step import Facts, Progress, Step, perturbs_of
from reid_attack_bench.steps.workspace import Workspace

_Rows = TypeVar("_Rows", torch.Tensor, "torch.Tensor | None")

_EMBED_BATCH = {
    "cuda": 256,
    "cpu": 32,
}  # images per forward pass without gradients; larger batches fall out of the CPU's caches


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
    """Concatenated `work(first, count)` over all images, in batches that suit the device and fit its memory.

    None if `work` returns None.
    """
    size, parts, done = _EMBED_BATCH[device.type], [], 0
    while done < total:
        part, size = with_smaller_batches(functools.partial(work, done), size, label, note)
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
    """Embeddings of each side, and REFUSED, bool N, for a victim with a detector."""
    features = {part: _embed_all(victim, values, label, device, progress, note) for part, values in images.items()}
    refused = _refusals(victim, images["query"], label, device, note) if "query" in images else None
    return features if refused is None else {**features, REFUSED: refused}


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


CLEAN_VERSION = 1
FEATURES_VERSION = 1


def clean_step(victim: Step, data: Step, passes: Mapping[str, Any], after: tuple[str, ...]) -> Step:
    """Embed the clean queries and gallery of `data` with `victim`."""
    return Step(
        "clean",
        CLEAN_VERSION,
        f"{victim.about} on {data.about}",
        {},
        passes,
        {"victim": victim, "data": data},
        after,
        action="clean features",
        work=images_attacked(data, "both"),
    )


def features_step(craft: Step, victim: Step, data: Step, passes: Mapping[str, Any], after: tuple[str, ...]) -> Step:
    """Embed the adversarial images of `craft` with the target `victim`."""
    return Step(
        "features",
        FEATURES_VERSION,
        f"{craft.about} → {victim.about}",
        {},
        passes,
        {"craft": craft, "victim": victim, "data": data},
        after,
        work=images_attacked(data, perturbs_of(craft)),
    )


def run_clean(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    victim = workspace.passes(step.inputs["victim"], step.implementation)
    splits = workspace.splits(step.inputs["data"])
    label = step.parents["victim"].about
    images = {part: splits[part].images for part in ("query", "gallery")}
    features = _embed_sides(victim, images, label, workspace.device, progress, workspace.note)
    save_file(features, out / "features.safetensors")
    return {"dimensions": features["query"].shape[1]}


def run_features(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    victim = workspace.passes(step.inputs["victim"], step.implementation)
    label = step.parents["victim"].about
    crafted = read_crafted(workspace.obtain(step.inputs["craft"]))
    features = _embed_sides(victim, crafted, label, workspace.device, progress, workspace.note)
    save_file(features, out / "features.safetensors")
    return {}
