"""Training data and context of fits: victims, learned attacks and learned defences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from reid_attack_bench.contracts.cameras import without_cameras
from reid_attack_bench.contracts.images import to_float

State = dict[str, Tensor]
"""Result of a fit: named tensors, stored as safetensors."""


def to_cpu(state: State) -> State:
    """Copies of the tensors: detached, contiguous, on the CPU, without cameras."""
    return {name: without_cameras(tensor).detach().cpu().clone().contiguous() for name, tensor in state.items()}


@dataclass(frozen=True)
class TrainingData:
    """The training split of one data set.

    Attributes:
        name: data set name.
        images: uint8 RGB, N×H×W×3 (usually a read-only memory map). For a learned attack or defence of a victim with
            `uses_cameras` they know their cameras, see `cameras`.
        identities: int64 N, contiguous labels 0 … K−1.
        cameras: int64 N.
    """

    name: str
    images: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray

    @property
    def identity_count(self) -> int:
        return int(self.identities.max()) + 1

    def batch(self, indices: np.ndarray | list[int], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Images (float32 N×3×H×W in [0, 1]) and identities (int64 N) at `indices`."""
        chosen = np.asarray(indices)
        return to_float(self.images[chosen], device), torch.from_numpy(self.identities[chosen]).to(device)


class Checkpoint(Protocol):
    """Intermediate state of a long fit. It is deleted when the fit ends."""

    def load(self) -> State | None:
        """The state that an interrupted fit of the same step saved last, or None."""
        ...

    def save(self, state: State) -> None:
        """Replace the saved state."""
        ...


@dataclass(frozen=True)
class FitContext:
    """Device, random numbers, progress and checkpoint of a fit.

    Attributes:
        device: device to train on.
        generator: seeded CPU generator; the global torch, numpy and random states are seeded too.
        progress: to be called as progress(done, total, note) after each unit of work.
        checkpoint: intermediate state, or None. A fit that resumes from it must give the same result as one that was
            never interrupted.
    """

    device: torch.device
    generator: torch.Generator
    progress: Callable[[int, int, str], None] = lambda done, total, note: None
    checkpoint: Checkpoint | None = None
