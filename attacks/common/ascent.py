"""Signed-gradient ascent, shared by FGSM, PGD and their metric variants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from reid_attack_bench.contracts import ThreatModel, Victim


def uniform_start(images: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """`images` plus uniform noise in [−radius, radius], drawn on the CPU so that it is the same on every device."""
    noise = torch.rand(images.shape, generator=generator, dtype=images.dtype).mul_(2.0).sub_(1.0)
    return noise.to(images.device).mul_(radius).add_(images)


@dataclass(frozen=True)
class Steps:
    """Steps of `ascend`.

    Attributes:
        count: number of steps.
        size: size of each, in [0, 1] units.
        momentum, nesterov: see `transfer.TransferOptions`.
        falling: the size falls linearly from `size`, the first step, to 0.
    """

    count: int
    size: float
    momentum: float = 0.0
    nesterov: bool = False
    falling: bool = False

    def size_of(self, step: int) -> float:
        """Size of step 0 … count − 1."""
        return self.size * (1.0 - step / self.count) if self.falling else self.size


def ascend(
    objective: Callable[[Tensor], Tensor],
    source: Victim,
    clean: Tensor,
    start: Tensor,
    threat: ThreatModel,
    steps: Steps,
) -> Tensor:
    """Maximise `objective` by signed-gradient steps, each followed by a projection into the budget.

    Args:
        objective: images N×3×H×W → N values, one per image.
        source: the white-box model. If it is adapted to a detector, the steps of a refused image descend the detector's
            suspicion instead (selective gradient descent, Bryniarski et al., arXiv 2106.15023).
        clean: N×3×H×W in [0, 1], the centre of the ball.
        start: N×3×H×W, the initial images; projected first.
        threat: the budget.
        steps: number, size and momentum of the steps.

    Returns:
        Images within `threat`. A pixel budget keeps the positions with the largest gradient if there is a single step,
        else those that changed most.
    """
    current = accepted = clean if start is clean else threat.project(start, clean)
    refused, velocity = None, torch.zeros(())
    for step in range(steps.count):
        size = steps.size_of(step)
        current = point = current.detach().requires_grad_(True)
        if steps.nesterov and step and refused is None:
            ahead = torch.add(current.detach(), velocity, alpha=size * steps.momentum)
            point = ahead.clamp_(0.0, 1.0).requires_grad_(True)
        gradient, refused = _direction(objective, source, point)
        with torch.no_grad():
            if refused is not None:
                accepted = torch.where(refused, accepted, current)
            if steps.momentum:
                mean = gradient.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)
                gradient = velocity = (gradient / mean).add_(velocity, alpha=steps.momentum)
            scores = gradient.abs().sum(dim=1) if threat.pixels is not None and steps.count == 1 else None
            current = threat.project(torch.add(current, gradient.sign(), alpha=size), clean, scores)
    current = current.detach()
    if refused is None:
        return current
    # for images that end up refused, return the last accepted version
    _, refused = _direction(objective, source, current.requires_grad_(True))
    assert refused is not None
    return torch.where(refused, accepted, current).detach()


def in_chunks(climb: Callable[[slice], Tensor], source: Victim, count: int) -> Tensor:
    """Apply `climb` to `count` images in chunks of at most `source.max_batch`; concatenates the results.

    Chunks do not change the result if images are attacked independently and random numbers are drawn beforehand.
    """
    size = source.max_batch or count
    if size >= count:
        return climb(slice(0, count))
    return torch.cat([climb(slice(first, first + size)) for first in range(0, count, size)])


def _direction(objective: Callable[[Tensor], Tensor], source: Victim, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Direction of the next step, and bool N×1×1×1 of the images that a detector refuses; None without a detector."""
    (gradient,) = torch.autograd.grad(objective(images).sum(), images)
    suspicion = source.suspicion(images) if source.adapted else None
    if suspicion is None or not suspicion.requires_grad:
        return gradient, None
    (alarm,) = torch.autograd.grad(suspicion.sum(), images)
    refused = (suspicion > 0).view(-1, 1, 1, 1)
    return torch.where(refused, -alarm, gradient), refused
