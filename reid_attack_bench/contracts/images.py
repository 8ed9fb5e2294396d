"""Images between parts: float32 RGB N×3×H×W in [0, 1]; stored as uint8 RGB N×H×W×3."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts.cameras import cameras_of, with_cameras

IMAGENET_MEAN = (0.485, 0.456, 0.406)

IMAGENET_STD = (0.229, 0.224, 0.225)

Interpolation = Literal["bilinear", "bicubic"]


def to_float(images: np.ndarray | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """uint8 RGB N×H×W×3 → float32 RGB N×3×H×W in [0, 1] on `device`, with the cameras that the images know."""
    # copied, since torch refuses to share a read-only memory map
    tensor = torch.from_numpy(np.array(images)) if isinstance(images, np.ndarray) else images
    ready = tensor.to(device).permute(0, 3, 1, 2).contiguous().float().div(255.0)
    cameras = cameras_of(images) if isinstance(images, np.ndarray) else None
    return ready if cameras is None else with_cameras(ready, cameras)


def to_uint8(images: Tensor) -> np.ndarray:
    """float RGB N×3×H×W in [0, 1] → uint8 RGB N×H×W×3, rounded to the nearest of 256 levels."""
    levels = images.detach().mul(255.0).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def preprocess(
    images: Tensor,
    size: tuple[int, int],
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    *,
    interpolation: Interpolation = "bilinear",
    antialias: bool = True,
) -> Tensor:
    """Resize to `size` = (height, width) and normalise; differentiable.

    With antialias this is Pillow's resize, without it OpenCV's, but for their rounding to 8 bits. Bicubic interpolation
    is clipped to [0, 1], as theirs is. For use inside a victim; nothing else in the project resizes or normalises the
    input of a model.
    """
    if images.shape[-2:] != torch.Size(size):
        images = functional.interpolate(images, size=size, mode=interpolation, align_corners=False, antialias=antialias)
        if interpolation == "bicubic":
            images = images.clamp(0, 1)
    # non-blocking, so that no pass waits for the GPU
    shift, scale = (
        torch.tensor(values, dtype=images.dtype).to(images.device, non_blocking=True) for values in (mean, std)
    )
    return (images - shift.view(1, -1, 1, 1)) / scale.view(1, -1, 1, 1)
