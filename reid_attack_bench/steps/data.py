"""Step data: decode or render every image once."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from reid_attack_bench.contracts import State
from reid_attack_bench.data.split import check
from reid_attack_bench.steps.artefacts import new_images
from reid_attack_bench.steps.step import Facts, Progress, Step
from reid_attack_bench.steps.workspace import Workspace


def run_data(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    splits = step.subject.load(progress, functools.partial(new_images, out))
    check(splits, step.subject.name)
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
