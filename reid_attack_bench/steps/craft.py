"""Step craft: adversarial images, rounded to 8 bits and within budget."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from reid_attack_bench.adversary import budget
from reid_attack_bench.contracts import (
    Batch,
    ReferenceImages,
    Victim,
    craft_threat,
    to_float,
)
from reid_attack_bench.data.split import Split
from reid_attack_bench.steps.artefacts import new_images
from reid_attack_bench.steps.attack_run import AttackRun
from reid_attack_bench.steps.data import images_attacked
from reid_attack_bench.steps.passes import Chunked, with_smaller_batches
from reid_attack_bench.steps.step import Facts, Progress, Step, threat_of
from reid_attack_bench.steps.workspace import Workspace

VERSION = 2


def craft_step(
    run: AttackRun,
    source: Step,
    data: Step,
    fit: Step | None,
    passes: Mapping[str, Any],
    batch_size: int,
    after: tuple[str, ...],
) -> Step:
    """Craft the attack of `run` on `source` for the attacked sides of `data`.

    Args:
        source: left out where the attack does not use it, so that all sources share the result.
        fit: step that trained a learned attack.
        passes: precision and compilation of the source, see `passes`.
        after: the source's gate; ignored for an attack without needs.
    """
    needs = bool(run.needs)
    parents = {"data": data, **({"source": source} if run.uses_source else {}), **({"fit": fit} if fit else {})}
    return Step(
        "craft",
        VERSION,
        f"{run.label} on {source.about}, {data.about}" if needs else f"{run.label}, {data.about}",
        run.config(craft_threat(run.threat)),
        {**run.implementation, "batch_size": batch_size, **(passes if needs else {})},
        parents,
        after if needs else (),
        run.attack,
        work=images_attacked(data, run.threat.perturbs) * run.attack.craft_work,
    )


def run_craft(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    attack, threat = step.plugin, threat_of(step)
    source = workspace.source(step) if "source" in step.inputs else None
    splits = workspace.splits(step.inputs["data"])
    learned = {}
    if "fit" in step.inputs:
        state = load_file(workspace.obtain(step.inputs["fit"]) / "state.safetensors")
        learned = {"state": {name: value.to(workspace.device) for name, value in state.items()}}
    generator = torch.Generator().manual_seed(step.seed)

    def craft(seen: Victim | None, batch: Batch) -> torch.Tensor:
        adversarial: torch.Tensor = attack.craft(seen, batch, threat, generator, **learned)
        return adversarial

    size = max_batch = int(step.implementation["batch_size"])
    for part in ("query", "gallery") if threat.perturbs == "both" else (threat.perturbs,):
        split = splits[part]
        other = splits["gallery" if part == "query" else "query"]
        references = _references(other) if "gallery" in attack.needs else None
        stored = new_images(out, part, split.images.shape)
        for first in range(0, len(split.images), size):
            clean = np.asarray(split.images[first : first + size])
            labels = torch.from_numpy(split.identities[first : first + size]) if "labels" in attack.needs else None
            batch = Batch(to_float(clean, workspace.device), labels, references)
            crafted = functools.partial(_crafted, craft, source, batch, generator, generator.get_state())
            adversarial, max_batch = with_smaller_batches(crafted, max_batch, step.label, workspace.note)
            stored[first : first + size] = budget.enforce(
                adversarial, clean, threat, attack=str(step.config["attack"]), first_index=first
            )
            progress(first + len(clean), len(split.images), "")
    return {}


def _references(split: Split) -> ReferenceImages:
    return ReferenceImages(split.images, split.identities, split.cameras)


def _crafted(
    craft: Callable[[Victim | None, Batch], torch.Tensor],
    source: Victim | None,
    batch: Batch,
    generator: torch.Generator,
    drawn: torch.Tensor,
    max_batch: int,
) -> torch.Tensor:
    """Craft one batch with the random numbers that follow the state `drawn` of the generator.

    The batch stays whole, so the random numbers do not depend on `max_batch`, the images per pass of the source.
    """
    generator.set_state(drawn)
    return craft(source if source is None or max_batch >= len(batch.images) else Chunked(source, max_batch), batch)
