"""Step data: decode or render every image once."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.torch import save_file

from reid_attack_bench.contracts import State
from reid_attack_bench.data.source import DataSource
from reid_attack_bench.data.split import check
from reid_attack_bench.steps.artefacts import new_images
from reid_attack_bench.steps.step import Facts, Progress, Step
from reid_attack_bench.steps.workspace import Workspace

VERSION = 1


def data_step(source: DataSource) -> Step:
    """Decode or render the data set `source`."""
    config = {"name": source.name, **source.identity}
    return Step("data", VERSION, source.name, config, plugin=source, work=sum(source.counts.values()) / 4)


def source_of(data: Step) -> DataSource:
    """The data set of a data step."""
    return cast(DataSource, data.plugin)


def has_training_split(data: Step) -> bool:
    """Whether victims and attacks can be trained on a data set. One without a training split is only a target."""
    return source_of(data).counts.get("train", 0) > 0


def images_attacked(data: Step, perturbs: str) -> int:
    """Number of images on the "query" side of a data set, the "gallery" side, or "both"."""
    counts = source_of(data).counts
    return counts["query"] + counts["gallery"] if perturbs == "both" else counts[perturbs]


def run_data(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    source = source_of(step)
    splits = source.load(progress, functools.partial(new_images, out))
    check(splits, source.name)
    index: State = {}
    for part, split in splits.items():
        index[f"{part}.identities"] = torch.from_numpy(split.identities.astype(np.int64))
        index[f"{part}.cameras"] = torch.from_numpy(split.cameras.astype(np.int64))
        if not split.cameras_known:
            index[f"{part}.cameras_unknown"] = torch.ones(())
        if split.clothes is not None:
            index[f"{part}.clothes"] = torch.from_numpy(split.clothes.astype(np.int64))
    save_file(index, out / "index.safetensors")
    return {
        part: {
            "images": len(split.images),
            "identities": len(np.unique(split.identities)),
            "cameras": len(np.unique(split.cameras)),
        }
        for part, split in splits.items()
    }
