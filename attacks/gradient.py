"""The signed-gradient loop that FGSM, PGD and their metric forms share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reid_attack_bench.contracts import ThreatModel


def uniform_start(images: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """`images` plus uniform noise in [−radius, radius], drawn on the CPU so that every device sees the same."""
    noise = torch.rand(images.shape, generator=generator, dtype=images.dtype) * 2.0 - 1.0
    return images + radius * noise.to(images.device)


def ascend(
    objective: Callable[[Tensor], Tensor],
    clean: Tensor,
    start: Tensor,
    threat: ThreatModel,
    *,
    steps: int,
    step_size: float,
) -> Tensor:
    """Climb `objective` by `steps` signed-gradient steps of `step_size` ([0, 1] units), projecting after each.

    Args:
        objective: images N×3×H×W → N values; each image climbs its own.
        clean: N×3×H×W in [0, 1], the centre of the ball.
        start: N×3×H×W where to begin; projected first.

    Returns:
        Images inside `threat`. With a pixel budget, the positions kept are those with the largest gradient
        in a single step, else those that moved most.
    """
    current = threat.project(start, clean)
    for _ in range(steps):
        current = current.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(objective(current).sum(), current)
        with torch.no_grad():
            scores = gradient.abs().sum(dim=1) if threat.pixels is not None and steps == 1 else None
            current = threat.project(current + step_size * gradient.sign(), clean, scores)
    return current.detach()


def auto_step(threat: ThreatModel, steps: int, step_size: float | None) -> float:
    """`step_size` (1/255) in [0, 1] units; by default 2.5·epsilon/steps, which can cross the ball (Madry et al.)."""
    return 2.5 * threat.radius / steps if step_size is None else step_size / 255.0
