"""How much an attack changed its images: SSIM, MS-SSIM, LPIPS, and the plain counts of the threat model.

SSIM and MS-SSIM are at once losses (Mis-Ranking trains against MS-SSIM) and the metrics that a report
prints, so there is one definition of each. LPIPS needs ImageNet weights that no package ships; it is
computed where they are found and left out where they are not, never with random weights.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import torch

from reid_attack_bench.contracts import to_float
from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics.checkerboard import checkerboard_energy
from reid_attack_bench.metrics.lpips import Lpips
from reid_attack_bench.metrics.ssim import ssim_and_ms_ssim

_CHUNK = 256  # images compared at a time, so that a memory map stays one

_PIXELS = {"cuda": 2**23, "cpu": 2**17}  # of the images measured at once; more leave a CPU's caches


class Change(TypedDict):
    """What `change` counts, one entry per image.

    linf: int64, largest change of a colour value in steps of 1/255. l2: float64, Euclidean norm of the change over all
    colour values in [0, 1]. pixels: int64, positions of H×W where any of R, G, B changed.
    """

    linf: np.ndarray
    l2: np.ndarray
    pixels: np.ndarray


def change(clean: np.ndarray, adversarial: np.ndarray) -> Change:
    """Count the change per image, in the units of a threat model.

    Args:
        clean, adversarial: uint8 RGB N×H×W×3; memory maps are read in chunks.

    Raises:
        BenchError: shapes differ, or the images are not uint8.
    """
    if clean.shape != adversarial.shape or clean.dtype != np.uint8 or adversarial.dtype != np.uint8:
        raise BenchError(
            "change compares stored images, two uint8 arrays of one shape, not "
            f"{clean.dtype} {clean.shape} and {adversarial.dtype} {adversarial.shape}: convert with to_uint8"
        )
    count = len(clean)
    linf, l2, pixels = np.zeros(count, np.int64), np.zeros(count, np.float64), np.zeros(count, np.int64)
    for start in range(0, count, _CHUNK):
        part = slice(start, start + _CHUNK)
        steps = np.abs(adversarial[part].astype(np.int16) - clean[part].astype(np.int16))
        flat = steps.reshape(len(steps), -1)
        linf[part] = flat.max(axis=1, initial=0)
        l2[part] = np.sqrt(np.square(flat, dtype=np.int64).sum(axis=1)) / 255.0
        pixels[part] = steps.any(axis=-1).reshape(len(steps), -1).sum(axis=1)
    return Change(linf=linf, l2=l2, pixels=pixels)


def measures(
    clean: np.ndarray, adversarial: np.ndarray, device: torch.device | str = "cpu", lpips: Lpips | None = None
) -> dict[str, np.ndarray]:
    """Everything that says how visible a change is: name → N values.

    linf, l2, pixels as `change` counts them, ssim, ms_ssim, grid (see metrics.grid), and lpips where it is given.

    Args:
        clean, adversarial: uint8 RGB N×H×W×3, sides from 16.

    Raises:
        BenchError: shapes differ, or the images are too small.
    """
    clean, adversarial = np.asarray(clean), np.asarray(adversarial)
    found: dict[str, np.ndarray] = {**change(clean, adversarial)}  # type: ignore[dict-item]
    before, after = to_float(clean, device), to_float(adversarial, device)
    with torch.no_grad():
        found["ssim"], found["ms_ssim"] = (values.cpu().numpy() for values in ssim_and_ms_ssim(before, after))
        found["grid"] = checkerboard_energy(after - before).cpu().numpy()
        if lpips is not None:
            found["lpips"] = lpips(before, after).cpu().numpy()
    return found


def batch_size(images: np.ndarray, device: torch.device) -> int:
    """How many of these, N×H×W×3, are best handed to `measures` at once."""
    height, width = images.shape[1:3]
    return max(1, _PIXELS[device.type] // (height * width))
