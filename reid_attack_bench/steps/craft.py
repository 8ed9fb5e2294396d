"""Step craft: adversarial images, rounded to 8 bits and within budget."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from reid_attack_bench.adversary import budget
from reid_attack_bench.contracts import Batch, ReferenceImages, State, ThreatModel, Victim, to_float
from reid_attack_bench.steps.artefacts import new_images
from reid_attack_bench.steps.passes import Chunked, with_smaller_batches
from reid_attack_bench.steps.step import Facts, Progress, Step, threat_of
from reid_attack_bench.steps.workspace import Workspace


def run_craft(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    attack, threat = step.subject, threat_of(step)
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
        guides = ReferenceImages(other.images, other.identities, other.cameras) if "gallery" in attack.needs else None
        stored = new_images(out, part, split.images.shape)
        for first in range(0, len(split.images), size):
            clean = np.asarray(split.images[first : first + size])
            labels = torch.from_numpy(split.identities[first : first + size]) if "labels" in attack.needs else None
            batch = Batch(to_float(clean, workspace.device), labels, guides)
            crafted = functools.partial(
                _crafted, attack, source, batch, threat, generator, generator.get_state(), learned
            )
            adversarial, at_once = with_smaller_batches(crafted, at_once, step.label, workspace.note)
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
    seen = source if source is None or at_once >= len(batch.images) else Chunked(source, at_once)
    adversarial: torch.Tensor = attack.craft(seen, batch, threat, generator, **learned)
    return adversarial
