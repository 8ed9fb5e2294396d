"""The signed-gradient loop that FGSM, PGD and their metric forms share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reid_attack_bench.contracts import ThreatModel, Victim


def uniform_start(images: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """`images` plus uniform noise in [−radius, radius], drawn on the CPU so that every device sees the same."""
    noise = torch.rand(images.shape, generator=generator, dtype=images.dtype).mul_(2.0).sub_(1.0)
    return noise.to(images.device).mul_(radius).add_(images)


def ascend(
    objective: Callable[[Tensor], Tensor],
    source: Victim,
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
        source: what it is crafted on; where that is adapted to a detector, an image that is refused climbs down the
            detector's suspicion instead (Bryniarski et al., arXiv 2106.15023).
        clean: N×3×H×W in [0, 1], the centre of the ball.
        start: N×3×H×W where to begin; projected first.

    Returns:
        Images inside `threat`. With a pixel budget, the positions kept are those with the largest gradient
        in a single step, else those that moved most.
    """
    current = passing = clean if start is clean else threat.project(start, clean)
    refused = None
    for _ in range(steps):
        current = current.detach().requires_grad_(True)
        gradient, refused = _uphill(objective, source, current)
        with torch.no_grad():
            if refused is not None:
                passing = torch.where(refused, passing, current)
            scores = gradient.abs().sum(dim=1) if threat.pixels is not None and steps == 1 else None
            current = threat.project(torch.add(current, gradient.sign(), alpha=step_size), clean, scores)
    current = current.detach()
    if refused is None:
        return current
    # of an image that is refused at last, the latest form that was not
    _, refused = _uphill(objective, source, current.requires_grad_(True))
    assert refused is not None
    return torch.where(refused, passing, current).detach()


def in_parts(climb: Callable[[slice], Tensor], source: Victim, count: int) -> Tensor:
    """`climb` of all of `count` images: at once, or in turn as many as `source` takes at once.

    Each image climbs its own, and what is random is drawn before for all of them, so the parts change nothing.
    """
    size = source.max_batch or count
    if size >= count:
        return climb(slice(0, count))
    return torch.cat([climb(slice(first, first + size)) for first in range(0, count, size)])


def _uphill(objective: Callable[[Tensor], Tensor], source: Victim, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Where to go from `images`, and which of them a detector refuses, bool N×1×1×1; None without a detector."""
    (gradient,) = torch.autograd.grad(objective(images).sum(), images)
    suspicion = source.suspicion(images) if source.adapted else None
    if suspicion is None or not suspicion.requires_grad:
        return gradient, None
    (alarm,) = torch.autograd.grad(suspicion.sum(), images)
    refused = (suspicion > 0).view(-1, 1, 1, 1)
    return torch.where(refused, -alarm, gradient), refused


def auto_step(threat: ThreatModel, steps: int, step_size: float | None) -> float:
    """`step_size` (1/255) in [0, 1] units; by default 2.5·epsilon/steps, which can cross the ball (Madry et al.)."""
    return 2.5 * threat.radius / steps if step_size is None else step_size / 255.0
