"""Budget check: adversarial images are rounded to 8 bits and compared with their threat model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reid_attack_bench.contracts import ThreatModel, to_uint8
from reid_attack_bench.errors import BudgetError


def enforce(
    adversarial: Tensor, clean: np.ndarray, threat: ThreatModel, *, attack: str, first_index: int = 0
) -> np.ndarray:
    """Round adversarial images to 8 bits and check that they are within the budget around the clean images.

    Args:
        adversarial: float N×3×H×W in [0, 1], as returned by the attack.
        clean: uint8 N×H×W×3, the images that were attacked.
        threat: the budget.
        attack: name of the attack, for the error.
        first_index: position of the first image in its split, for the error.

    Returns:
        uint8 N×H×W×3, within the budget.

    Raises:
        BudgetError: wrong shape, NaN or infinity, outside [0, 1], or over epsilon or the pixel budget; names the
            attack, the image and the excess.
    """
    expected = (clean.shape[0], clean.shape[3], clean.shape[1], clean.shape[2])
    if not isinstance(adversarial, Tensor) or tuple(adversarial.shape) != expected:
        got = tuple(adversarial.shape) if isinstance(adversarial, Tensor) else type(adversarial).__name__
        raise BudgetError(f"attack '{attack}' returned {got} for images of shape {expected}")
    bad = ~torch.isfinite(adversarial).flatten(1).all(dim=1)
    if bad.any():
        raise BudgetError(f"attack '{attack}' returned NaN or infinity for image {first_index + int(bad.nonzero()[0])}")
    outside = torch.maximum(-adversarial, adversarial - 1.0).flatten(1).amax(dim=1)
    if (outside > 0.5 / 255).any():  # less than half an 8-bit step is rounded into range
        image = int(outside.argmax())
        raise BudgetError(
            f"attack '{attack}' left the valid range [0, 1] by {outside[image]:.4f} on image {first_index + image}: "
            "clamp its images"
        )
    stored = to_uint8(adversarial)
    change = np.abs(stored.astype(np.int16) - clean.astype(np.int16))
    largest = change.reshape(len(change), -1).max(axis=1)
    if (largest > threat.epsilon).any():
        image = int(largest.argmax())
        raise BudgetError(
            f"attack '{attack}' exceeded its L-inf budget on image {first_index + image}: {largest[image]}/255 "
            f"against epsilon {threat.epsilon}/255 (excess {largest[image] - threat.epsilon}/255)"
        )
    if threat.pixels is not None:
        touched = (change.max(axis=3) > 0).sum(axis=(1, 2))
        if (touched > threat.pixels).any():
            image = int(touched.argmax())
            raise BudgetError(
                f"attack '{attack}' exceeded its pixel budget on image {first_index + image}: {touched[image]} pixels "
                f"against {threat.pixels} (excess {touched[image] - threat.pixels})"
            )
    return stored
