"""Step measure: visibility of the adversarial images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from reid_attack_bench.metrics import visibility as image_metrics
from reid_attack_bench.metrics.lpips import Lpips, find_lpips_weights
from reid_attack_bench.steps.artefacts import read_crafted
from reid_attack_bench.steps.data import images_attacked
from reid_attack_bench.steps.step import Facts, Progress, Step, perturbs_of
from reid_attack_bench.steps.workspace import Workspace

VERSION = 3


def measure_step(craft: Step, data: Step, lpips: str | None) -> Step:
    """Measure the visibility of the images of `craft`; `lpips` is the digest of the LPIPS weights, None without."""
    work = images_attacked(data, perturbs_of(craft))
    return Step("measure", VERSION, craft.about, {}, {"lpips": lpips}, {"craft": craft, "data": data}, work=work)


def run_measure(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    splits = workspace.splits(step.inputs["data"])
    crafted = read_crafted(workspace.obtain(step.inputs["craft"]))
    columns: dict[str, list[np.ndarray]] = {}
    weights = find_lpips_weights() if step.implementation["lpips"] else None
    lpips = Lpips(weights, workspace.device) if weights else None
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
