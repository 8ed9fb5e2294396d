"""Size of a perturbation in the units of a threat model: L∞, L2 and the number of changed pixels."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from reid_attack_bench.errors import BenchError

_CHUNK = 256  # images read at a time from a memory map


class Change(TypedDict):
    """Size of each perturbation, one entry per image.

    linf: int64, largest change of a colour value in steps of 1/255. l2: float64, Euclidean norm of the change over all
    colour values in [0, 1]. pixels_changed: int64, positions of H×W where any of R, G, B changed.
    """

    linf: np.ndarray
    l2: np.ndarray
    pixels_changed: np.ndarray


def change(clean: np.ndarray, adversarial: np.ndarray) -> Change:
    """Measure the perturbation of each image, in the units of a threat model.

    Args:
        clean, adversarial: uint8 RGB N×H×W×3; memory maps are read in chunks.

    Raises:
        BenchError: shapes differ, or the images are not uint8.
    """
    if clean.shape != adversarial.shape or clean.dtype != np.uint8 or adversarial.dtype != np.uint8:
        raise BenchError(
            "change compares two uint8 arrays of one shape, not "
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
    return Change(linf=linf, l2=l2, pixels_changed=pixels)
