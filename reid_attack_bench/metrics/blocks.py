"""Blocks of distances, of whatever type a model has them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reid_attack_bench.errors import BenchError


def as_floats(block: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """A block as float32 or float64, without gradients; a tensor on the CPU as an array, which shares its memory.

    Half precision becomes float32; whole numbers become float64, which holds them.

    Raises:
        BenchError: it is complex, or no numbers.
    """
    if isinstance(block, Tensor):
        block = block.detach()
        if block.dtype in (torch.float16, torch.bfloat16):
            block = block.float()
        elif not block.is_floating_point() and not block.is_complex():
            block = block.double()
        if block.device.type == "cpu":
            block = block.numpy()
    elif block.dtype == np.float16:
        block = block.astype(np.float32)
    elif block.dtype.kind in "iub" or block.dtype == np.longdouble:
        block = block.astype(np.float64)
    kind = block.dtype
    if kind not in (torch.float32, torch.float64) and kind not in (np.float32, np.float64):
        raise BenchError(f"distances must be real numbers, not {kind}")
    return block
