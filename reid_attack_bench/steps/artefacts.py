"""File names of what steps store, and how each is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from reid_attack_bench.data.split import Split
from reid_attack_bench.metrics.ranking import Ranking

REFUSED = "query_refused"


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


def new_images(folder: Path, part: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.lib.format.open_memmap(folder / f"{part}.npy", mode="w+", dtype=np.uint8, shape=shape)


def read_crafted(folder: Path) -> dict[str, np.ndarray]:
    """The perturbed sides of one craft: part → uint8 N×H×W×3, memory-mapped."""
    return {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
