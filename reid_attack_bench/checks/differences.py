"""Finite differences of a victim's losses, along gradients and along random directions."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from reid_attack_bench.checks.losses import Point
from reid_attack_bench.checks.subject import MOVED, Subject, same_draw
from reid_attack_bench.contracts import Victim

_SHARP = (0.001, 0.03)  # steps in double precision, in 1/255: short ones cross few kinks

_COARSE = (2.0, 0.5, 0.125)  # in single precision: long ones cross kinks, short ones suffer from rounding

ATTACK_STEPS = (8.0, 2.0, 0.5)
"""Steps of attacks, in 1/255."""

_GOOD = 0.05  # relative error below which no other step is tried

_RANDOM = 4  # random directions that a gradient is compared with


@dataclass(frozen=True)
class Differences:
    """Finite differences of one victim, in double precision where a copy of it computes the same.

    Random directions estimate the norm of the true gradient of a loss f: the mean of (∇f·r)² over random signs r is its
    square. `draws` of a randomised victim are averaged over.
    """

    subject: Subject
    draws: int = 1

    @functools.cached_property
    def _copy(self) -> Victim | None:
        try:
            victim = copy.deepcopy(self.subject.victim).double()
            return victim if self._agrees(victim, self.subject.few[:2]) else None
        except Exception:  # a model may not be copied, or have its type in its code
            return None

    def _agrees(self, victim: Victim, images: Tensor) -> bool:
        with torch.no_grad(), same_draw(images.device):
            wide = victim.embed(images.double())
        with same_draw(images.device):
            return wide.dtype == torch.float64 and self.subject.moved(wide, self.subject.embed(images)) <= MOVED

    def double(self, point: Point) -> Victim | None:
        """A copy in double precision that embeds the images of `point` as the victim does; None if there is none."""
        return self._copy if self._copy is not None and self._agrees(self._copy, point.images) else None

    def error(self, point: Point, gradient: Tensor, double: Victim | None) -> tuple[float, float]:
        """Relative error of `gradient` along two directions in which it is large, and the best step."""
        sign = gradient.sign() * ((point.images > 0.005) & (point.images < 0.995))
        half = torch.rand(sign[:, :1].shape, generator=torch.Generator().manual_seed(1)) < 0.5
        directions = (sign, sign * half.to(sign))
        claimed = torch.stack([(gradient.double() * each).flatten(1).sum(dim=1) for each in directions])
        errors: list[tuple[float, float]] = []
        for step in _COARSE if double is None else _SHARP:
            seen = torch.stack([self.slope(point, each, step, double) for each in directions])
            errors.append((float((seen - claimed).norm() / claimed.norm().clamp_min(1e-300)), step))
            if errors[-1][0] <= _GOOD:
                break
        return min(errors)

    def slope(self, point: Point, direction: Tensor, step: float, double: Victim | None = None) -> Tensor:
        """Change of the loss per unit of `direction`, N values, mean over `draws`; `step` in 1/255."""
        victim, length = self.subject.victim if double is None else double, step / 255
        images = point.images if double is None else point.images.double()
        total = torch.zeros(len(images), dtype=torch.float64, device=images.device)
        for seed in range(self.draws):
            for side in (1.0, -1.0):
                with torch.no_grad(), same_draw(images.device, seed):
                    total += side * point.loss(victim, (images + side * length * direction).clamp(0, 1)).double()
        return total / (2 * length * self.draws)

    def norm(self, point: Point, step: float, double: Victim | None = None) -> Tensor:
        """Norm of the true gradient as random directions suggest, N values."""
        generator = torch.Generator().manual_seed(2)
        draws = [torch.rand(point.images.shape, generator=generator) < 0.5 for _ in range(_RANDOM)]
        slopes = [self.slope(point, 2.0 * draw.to(point.images) - 1.0, step, double) for draw in draws]
        return torch.stack(slopes).square().mean(dim=0).sqrt()

    def alignment(self, point: Point, gradient: Tensor, step: float, double: Victim | None = None) -> float:
        """Cosine between `gradient` and the true gradient, as its sign and random directions suggest.

        1 for the true gradient of a smooth loss, about 0 for a random direction, below 0 for a descent.
        """
        flat = gradient.flatten(1).double()
        scale = flat.norm(dim=1) / flat.norm(1, dim=1).clamp_min(1e-300)
        along = (self.slope(point, gradient.sign(), step, double) * scale).sum()
        return float(along / self.norm(point, step, double).sum().clamp_min(1e-300))
