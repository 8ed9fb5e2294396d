"""Visibility of adversarial images: all metrics of group "visibility" in the catalogue."""

from __future__ import annotations

import numpy as np
import torch

from reid_attack_bench.contracts import to_float
from reid_attack_bench.metrics.catalogue import ImagePair, of_group
from reid_attack_bench.metrics.lpips import Lpips

_PIXELS = {"cuda": 2**23, "cpu": 2**17}  # measured at a time; more do not fit in the caches of a CPU


def measures(
    clean: np.ndarray, adversarial: np.ndarray, device: torch.device | str = "cpu", lpips: Lpips | None = None
) -> dict[str, np.ndarray]:
    """Measure each adversarial image against its clean image: name → N values.

    LPIPS is left out without its weights, which no package ships.

    Args:
        clean, adversarial: uint8 RGB N×H×W×3, sides of at least 16.

    Raises:
        BenchError: shapes differ, or the images are too small.
    """
    clean, adversarial = np.asarray(clean), np.asarray(adversarial)
    functions = dict.fromkeys(measure.compute for measure in of_group("visibility") if measure.compute)
    found: dict[str, np.ndarray] = {}
    with torch.no_grad():
        pair = ImagePair(clean, adversarial, to_float(clean, device), to_float(adversarial, device), lpips)
        for function in functions:
            for name, values in function(pair).items():
                found[name] = values.cpu().numpy() if isinstance(values, torch.Tensor) else values
    return found


def batch_size(images: np.ndarray, device: torch.device) -> int:
    """Number of images, of the size of `images` (N×H×W×3), to pass to `measures` at once for best speed."""
    height, width = images.shape[1:3]
    return max(1, _PIXELS[device.type] // (height * width))
