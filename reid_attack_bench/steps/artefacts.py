"""Files that steps store: names and readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from reid_attack_bench.data.split import Split
from reid_attack_bench.metrics.ranking import Ranking

REFUSED = "query_refused"
"""Tensor in a features file, bool N: queries that the victim's detector refuses."""

TARGETS = "targets.safetensors"
"""File of a craft step whose attack impersonates: int64 N, the target identity of each query."""


def read_splits(folder: Path) -> dict[str, Split]:
    """The splits "train", "query" and "gallery" of a data step; images are memory-mapped."""
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
    """Ranking of a rank or clean-rank step."""
    return Ranking(**{name: value.numpy() for name, value in load_file(folder / "ranking.safetensors").items()})


def new_images(folder: Path, part: str, shape: tuple[int, ...]) -> np.ndarray:
    """New uint8 array of `shape`, memory-mapped to the file of `part` in `folder`."""
    return np.lib.format.open_memmap(folder / f"{part}.npy", mode="w+", dtype=np.uint8, shape=shape)


def read_crafted(folder: Path) -> dict[str, np.ndarray]:
    """The perturbed sides of a craft step: part → uint8 N×H×W×3, memory-mapped."""
    return {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}


def write_targets(folder: Path, identities: np.ndarray) -> None:
    save_file({"identities": torch.from_numpy(identities)}, folder / TARGETS)


def read_targets(folder: Path) -> np.ndarray:
    """Target identities of a craft step whose attack impersonates, int64 N."""
    return load_file(folder / TARGETS)["identities"].numpy()
