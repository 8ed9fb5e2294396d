"""Images that know their cameras, for victims with `uses_cameras`: attacks and defences need not know.

A tensor of images is marked with one camera per image, and what is computed from it by torch is too; see `provenance`.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from reid_attack_bench.contracts.provenance import NEUTRAL, UNKNOWN, Marked, by_rows, marked, marks_of, plain

_Images = TypeVar("_Images", Tensor, np.ndarray)


def with_cameras(images: _Images, cameras: Tensor | np.ndarray) -> _Images:
    """`images` marked with their cameras; the values are shared.

    Args:
        images: float N×3×H×W, or uint8 N×H×W×3 in NumPy for `to_float` (a memory map is not read).
        cameras: int N; −1 where unknown.
    """
    if isinstance(images, np.ndarray):
        array = images.view(_Array)
        array.cameras = np.asarray(cameras, np.int64)
        return array
    marks = torch.as_tensor(cameras).to("cpu", torch.int64).view(-1, *[1] * (images.ndim - 1))
    values = plain(images)
    shared = values.as_subclass(Marked) if values.requires_grad else Tensor._make_subclass(Marked, values)
    return marked(shared, marks, [0])


def without_cameras(images: Tensor) -> Tensor:
    """`images` as a plain tensor; the values and the gradient are shared."""
    return plain(images)


def cameras_of(images: Tensor | np.ndarray) -> Tensor | None:
    """Cameras of N images, int64 N on their device, −1 where unknown; None if nothing is known of any."""
    if isinstance(images, np.ndarray):
        array = getattr(images, "cameras", None)
        return None if array is None else torch.from_numpy(array)
    if not isinstance(images, Marked) or images.ndim == 0:
        return None
    marks = by_rows(marks_of(images))
    return torch.where(marks == NEUTRAL, UNKNOWN, marks).expand(len(images)).clone().to(images.device)


def versions_of(images: Tensor, clean: Tensor) -> Tensor:
    """`images`, with the cameras of `clean` if it has any: each is a version of the clean image in its place."""
    cameras = cameras_of(clean)
    return images if cameras is None or len(images) != len(clean) else with_cameras(images, cameras)


class _Array(np.ndarray):
    """uint8 images that know their cameras as long as whole images are chosen."""

    cameras: np.ndarray | None

    def __array_finalize__(self, other: Any) -> None:
        self.cameras = None

    def __getitem__(self, index: Any) -> Any:
        chosen = super().__getitem__(index)
        if self.cameras is None or not isinstance(chosen, _Array):
            return chosen
        first, rest = (index[0], index[1:]) if isinstance(index, tuple) and index else (index, ())
        whole = first is not Ellipsis and all(isinstance(each, slice) or each is Ellipsis for each in rest)
        cameras = np.asarray(self.cameras[first]) if whole and np.ndim(first) <= 1 else None
        if cameras is not None and chosen.ndim == 3 + cameras.ndim:
            chosen.cameras = cameras
        return chosen
