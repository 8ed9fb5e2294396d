"""Steps clean and features: embeddings of clean images and of adversarial images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from reid_attack_bench.checks.embed import embed
from reid_attack_bench.contracts import State, Victim, to_float
from reid_attack_bench.data.split import Split
from reid_attack_bench.errors import VictimError
from reid_attack_bench.steps.artefacts import REFUSED, read_crafted, write_draws
from reid_attack_bench.steps.data import images_attacked, source_of
from reid_attack_bench.steps.loan import as_it_was
from reid_attack_bench.steps.passes import Note, inference, with_smaller_batches
from reid_attack_bench.steps.step import Facts, Progress, Step, perturbs_of
from reid_attack_bench.steps.workspace import Workspace

_Rows = TypeVar("_Rows", torch.Tensor, "torch.Tensor | None")

_EMBED_BATCH = {
    "cuda": 256,
    "cpu": 32,
}  # images per forward pass without gradients; larger batches fall out of the CPU's caches

DRAWS = 10
"""Fresh draws of a randomised victim, of which ranking takes the mean.

Clean queries and adversarial images are embedded as often; a clean gallery once, since a system in use embeds its
gallery once and queries as they come.
"""


def _embed_all(
    victim: Victim,
    images: np.ndarray,
    label: str,
    device: torch.device,
    progress: Progress,
    note: Note,
    called: Callable[[int], str],
) -> torch.Tensor:
    seen: set[torch.Size] = set()

    def embedded(first: int, count: int) -> torch.Tensor:
        batch = to_float(images[first : first + count], device)
        with inference(seen, batch):
            return embed(victim, batch, label, lambda row: called(first + row)).float().cpu()

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
    step: Step, workspace: Workspace, sides: Mapping[str, Split], progress: Progress, once: tuple[str, ...] = ()
) -> list[State]:
    """Embeddings of each side by the victim of `step`, and REFUSED, bool N, if it has a detector; one state per draw.

    A side in `once` is embedded in the first draw alone.
    """
    victim = workspace.passes(step.inputs["victim"], step)
    images = {part: split.images_for(victim) for part, split in sides.items()}
    label, device, note = step.parents["victim"].about, workspace.device, workspace.note
    source = source_of(step.parents["data"])
    count = DRAWS if workspace.randomised(step.inputs["victim"]) else 1

    def drawn(draw: int) -> State:
        of_draw = progress if count == 1 else _noted(progress, f"draw {draw + 1} of {count}")
        state = {
            part: _embed_all(victim, values, label, device, of_draw, note, functools.partial(source.image_name, part))
            for part, values in images.items()
            if not (draw and part in once)
        }
        refused = _refusals(victim, images["query"], label, device, note) if "query" in images else None
        return state if refused is None else {**state, REFUSED: refused}

    with as_it_was(victim):
        return [drawn(draw) for draw in range(count)]


def _noted(progress: Progress, text: str) -> Progress:
    return lambda done, total, note: progress(done, total, text)


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


def _as_drawn(passes: Mapping[str, Any], randomised: bool) -> tuple[dict[str, Any], int]:
    """Implementation of a step that embeds, and its draws. The draws are in the key of randomised victims alone."""
    return ({**passes, "draws": DRAWS}, DRAWS) if randomised else (dict(passes), 1)


def clean_step(
    victim: Step, data: Step, passes: Mapping[str, Any], after: tuple[str, ...], randomised: bool = False
) -> Step:
    """Embed the clean queries and gallery of `data` with `victim`; `randomised` if it is declared to be."""
    implementation, draws = _as_drawn(passes, randomised)
    return Step(
        "clean",
        CLEAN_VERSION,
        f"{victim.about} on {data.about}",
        {},
        implementation,
        {"victim": victim, "data": data},
        after,
        action="clean features",
        work=images_attacked(data, "gallery") + draws * images_attacked(data, "query"),
    )


def features_step(
    craft: Step, victim: Step, data: Step, passes: Mapping[str, Any], after: tuple[str, ...], randomised: bool = False
) -> Step:
    """Embed the adversarial images of `craft` with the target `victim`; `randomised` if it is declared to be."""
    implementation, draws = _as_drawn(passes, randomised)
    return Step(
        "features",
        FEATURES_VERSION,
        f"{craft.about} → {victim.about}",
        {},
        implementation,
        {"craft": craft, "victim": victim, "data": data},
        after,
        work=draws * images_attacked(data, perturbs_of(craft)),
    )


def run_clean(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    splits = workspace.splits(step.inputs["data"])
    sides = {part: splits[part] for part in ("query", "gallery")}
    draws = _embed_sides(step, workspace, sides, progress, once=("gallery",))
    write_draws(out, draws)
    return {"dimensions": draws[0]["query"].shape[1]}


def run_features(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    clean = workspace.splits(step.inputs["data"])
    crafted = read_crafted(workspace.obtain(step.inputs["craft"]))
    sides = {part: replace(clean[part], images=images) for part, images in crafted.items()}
    write_draws(out, _embed_sides(step, workspace, sides, progress))
    return {}
