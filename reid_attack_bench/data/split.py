"""Splits of a data set: images, identities and cameras."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from reid_attack_bench.contracts import Victim, with_cameras
from reid_attack_bench.contracts.cameras import UNKNOWN
from reid_attack_bench.errors import BenchError

Progress = Callable[[int, int, str], None]
"""Called as progress(done, total, note)."""

Allocate = Callable[[str, tuple[int, ...]], np.ndarray]
"""(split name, shape) → uint8 array to fill with its images. A memory map, because MSMT17 may not fit in memory."""


def in_memory(part: str, shape: tuple[int, ...]) -> np.ndarray:
    """An `Allocate` that returns arrays in memory."""
    return np.empty(shape, np.uint8)


def check(splits: Mapping[str, Split], name: str) -> None:
    """Raise BenchError without queries or gallery, for an empty split, or if no query identity is in the gallery."""
    for part in {**splits, "query": None, "gallery": None}:
        if part not in splits or len(splits[part].images) == 0:
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
        clothes: int64 N, the clothes of an identity; None for a data set without such labels.
        cameras_known: as in contracts.ImageList.
    """

    images: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray
    clothes: np.ndarray | None = None
    cameras_known: bool = True

    def images_for(self, victim: Victim | None) -> np.ndarray:
        """`images`; for a victim that uses cameras, alone or in an ensemble, they know theirs, see `with_cameras`."""
        if victim is None or not victim.uses_cameras:
            return self.images
        return with_cameras(self.images, self.cameras if self.cameras_known else np.full_like(self.cameras, UNKNOWN))

    def lent(self) -> Split:
        """The same to hand to a plug-in: what it writes there reaches neither this split nor the file of its images."""
        images = self.images
        if isinstance(images, np.memmap) and images.filename is not None:
            at = (images.filename, images.dtype, "c", images.offset, images.shape)
            images = np.memmap(*at)  # type: ignore[call-overload]  # pages that are written become its own
        else:
            images = images.copy()
        return replace(self, images=images, identities=self.identities.copy(), cameras=self.cameras.copy())
