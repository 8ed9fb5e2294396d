"""One side of a data set: images, identities and cameras."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from reid_attack_bench.errors import BenchError

Progress = Callable[[int, int, str], None]

Allocate = Callable[[str, tuple[int, ...]], np.ndarray]
"""(part, shape) → uint8 array to fill with that part's images, such as a memory map; MSMT17 does not fit otherwise."""


def in_memory(part: str, shape: tuple[int, ...]) -> np.ndarray:
    """An `Allocate` for a data set that fits."""
    return np.empty(shape, np.uint8)


def check(splits: Mapping[str, Split], name: str) -> None:
    """Refuse a data set that cannot be trained on or ranked."""
    for part in ("train", "query", "gallery"):
        if len(splits[part].images) == 0:
            raise BenchError(f"data set {name} has no {part} images")
    if not np.isin(splits["query"].identities, splits["gallery"].identities).any():
        raise BenchError(f"data set {name}: no query identity occurs in the gallery")


@dataclass(frozen=True)
class Split:
    """Images of one split.

    Attributes:
        images: uint8 RGB, N×H×W×3.
        identities: int64 N.
        cameras: int64 N, from 0.
    """

    images: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray
