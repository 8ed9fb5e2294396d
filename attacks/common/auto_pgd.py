"""Auto-PGD (Croce and Hein, ICML 2020, arXiv 2003.01690) for any objective, in the L-inf ball.

Momentum 0.75; the step starts at 2·epsilon and is halved, per image, at checkpoints where the ascent stalls; the best
point of each image is kept and returned. There is nothing to tune but the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from reid_attack_bench.contracts import ThreatModel, Victim

MOMENTUM = 0.75
"""Weight of the gradient step; the last move has the rest. The first step has no last move."""

RISING = 0.75
"""Share of the steps since the last checkpoint that must raise the objective, or else the step is halved."""

Schedule = Literal["checkpoints", "linear"]
"""Sizes of the steps, from 2·epsilon: halved at checkpoints where the ascent stalls, as the paper has it; or falling
linearly to 0, without a way back to the best point, which is stronger where steps are few."""


def checkpoints(updates: int) -> frozenset[int]:
    """Updates after which the step may be halved, of 1 … `updates`: ⌈p_j · updates⌉.

    p_0 = 0, p_1 = 0.22, and each next share is p_j + max(p_j − p_{j−1} − 0.03, 0.06).
    """
    percent, width, found = 22, 22, set()  # in whole percents, because 0.22 + 0.19 + … is rounded
    while percent < 100:
        found.add(-(-percent * updates // 100))
        width = max(width - 3, 6)
        percent += width
    return frozenset(found)


@dataclass(frozen=True)
class Points:
    """One point of each of N images.

    Attributes:
        images: N×3×H×W.
        values: N, the objective; minus the suspicion for an image that a detector refuses.
        refused: bool N; False without a detector.
    """

    images: Tensor
    values: Tensor
    refused: Tensor

    def above(self, other: Points) -> Tensor:
        """Bool N: accepted where `other` is refused, or of a larger value where both are the same."""
        larger = self.values > other.values
        return torch.where(self.refused == other.refused, larger, other.refused)

    def where(self, chosen: Tensor, other: Points) -> Points:
        """These points where `chosen`, bool N, and those of `other` elsewhere."""
        return Points(
            torch.where(chosen.view(-1, 1, 1, 1), self.images, other.images),
            torch.where(chosen, self.values, other.values),
            torch.where(chosen, self.refused, other.refused),
        )


def auto_pgd(
    objective: Callable[[Tensor], Tensor],
    source: Victim,
    clean: Tensor,
    start: Tensor,
    threat: ThreatModel,
    *,
    steps: int,
    schedule: Schedule = "checkpoints",
) -> Points:
    """Maximise `objective` from `start`: the best of `steps` points per image.

    This takes `steps` forward passes and one backward pass less. Images do not influence each other.

    Args:
        objective: images N×3×H×W → N values, one per image.
        source: the white-box model. If it is adapted to a detector, refused images descend its suspicion instead
            (selective gradient descent, Bryniarski et al., arXiv 2106.15023), and any accepted point is better than
            any refused one.
        clean: N×3×H×W in [0, 1], the centre of the ball.
        start: N×3×H×W, the first points; projected first.
        threat: the budget. A pixel budget keeps the positions whose change raises the objective most, to first order.
        steps: number of points, including the first.
        schedule: see `Schedule`. With "linear" a randomised source gets the last point, not the best.
    """
    current, direction = _evaluated(objective, source, threat.project(start, clean), gradient=steps > 1)
    best, uphill = current, direction
    before, at_checkpoint = current.images, best.values
    size = clean.new_full((len(clean), 1, 1, 1), 2.0 * threat.radius)
    halved = torch.ones(len(clean), dtype=torch.bool, device=clean.device)
    rises, since = torch.zeros_like(best.values), 0
    checks = checkpoints(steps - 1) if schedule == "checkpoints" else frozenset[int]()
    for update in range(1, steps):
        if schedule == "linear":
            size = torch.full_like(size, 2.0 * threat.radius * (1.0 - (update - 1) / (steps - 1)))
        moved = _moved(current.images, before, direction, size, clean, threat, MOMENTUM if update > 1 else 1.0)
        before, last = current.images, current
        current, direction = _evaluated(objective, source, moved, gradient=update < steps - 1)
        rises, since = rises + current.above(last), since + 1
        better = current.above(best)
        best = current.where(better, best)
        if checks:
            uphill = torch.where(better.view(-1, 1, 1, 1), direction, uphill)
        if update in checks:
            # "at most", as in the authors' code; the paper writes "fewer than"
            stuck = ~halved & (best.values == at_checkpoint)
            halved = (rises <= RISING * since) | stuck
            chosen = halved.view(-1, 1, 1, 1)
            size = torch.where(chosen, size / 2, size)
            # the value of the last point stays, by which the next step counts as a rise: as in the authors' code
            current = Points(torch.where(chosen, best.images, current.images), current.values, current.refused)
            direction = torch.where(chosen, uphill, direction)
            rises, since, at_checkpoint = torch.zeros_like(rises), 0, best.values
    if schedule == "linear" and source.randomised:
        # one draw against another: the largest value is the luckiest draw, while the last steps average over draws
        return current.where(~current.refused | best.refused, best)
    return best


def _moved(
    images: Tensor,
    before: Tensor,
    direction: Tensor,
    size: Tensor,
    clean: Tensor,
    threat: ThreatModel,
    momentum: float,
) -> Tensor:
    def project(points: Tensor) -> Tensor:
        gain = None if threat.pixels is None else ((points - clean).clamp(-radius, radius) * direction).sum(dim=1)
        return threat.project(points, clean, gain)

    radius = threat.radius
    ahead = project(torch.addcmul(images, direction.sign(), size))
    if momentum == 1.0:
        return ahead
    return project(ahead.sub_(images).mul_(momentum).add_(images).add_(images - before, alpha=1.0 - momentum))


def _evaluated(
    objective: Callable[[Tensor], Tensor], source: Victim, images: Tensor, *, gradient: bool
) -> tuple[Points, Tensor]:
    """`images` with their values, and the direction of the next step; zeros unless `gradient`."""
    images = images.detach().requires_grad_(gradient)
    with torch.set_grad_enabled(gradient):
        values = objective(images)
        (direction,) = torch.autograd.grad(values.sum(), images) if gradient else (torch.zeros_like(images),)
        suspicion = source.suspicion(images) if source.adapted else None
        refused = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        if suspicion is not None:
            refused = suspicion.detach() > 0
            values = torch.where(refused, -suspicion, values)
            if gradient and suspicion.requires_grad:
                (alarm,) = torch.autograd.grad(suspicion.sum(), images)
                direction = torch.where(refused.view(-1, 1, 1, 1), -alarm, direction)
    return Points(images.detach(), values.detach(), refused), direction
