"""Options by which gradient attacks transfer better to other models, for any objective.

Those of `GradientOptions` change the gradient and fit any engine; `boosted` applies them to an objective. Those of
`TransferOptions` change the steps and belong to signed-gradient ascent. At their defaults they change nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from reid_attack_bench.contracts import ADDED_LATER, ThreatModel
from reid_attack_bench.errors import BenchError
from reid_attack_bench.validation import Count, NonNegative, Share

from .ascent import Steps
from .objectives import View

Objective = Callable[[Tensor], Tensor]
"""Images N×3×H×W → N values."""

Transform = Callable[[Tensor], Tensor]
"""A transformation of the images of a batch, N×3×H×W → the same; image i always gets transformation i."""

SIGMA = 3.0
"""Standard deviation of the translation-invariant kernel, in pixels."""


@dataclass(frozen=True, kw_only=True)
class GradientOptions:
    """Options on the gradient of an objective.

    Attributes:
        diversity: input diversity (DI; Xie et al., CVPR 2019, arXiv 1803.06978): probability with which an image is
            shrunk and put at a random place on black before each pass. Height and width stay in proportion. Objectives
            that compare an image with its own clean embedding see the clean image through the same transformation.
        diversity_resize: smallest side after shrinking, as a share of the image's.
        kernel: translation invariance (TI; Dong et al., CVPR 2019, arXiv 1904.02884): side of the Gaussian kernel that
            smooths the gradient, odd, with σ = 3 pixels; 1 for none.
        scales: scale invariance (SI; Lin et al., ICLR 2020, arXiv 1908.06281): the objective is averaged over the
            images times 1, 1/2, 1/4, …; this number of scales. Each takes a pass.
    """

    diversity: Share = field(default=0.0, metadata=ADDED_LATER)
    diversity_resize: Annotated[float, Field(gt=0, lt=1)] = field(default=0.9, metadata=ADDED_LATER)
    kernel: Count = field(default=1, metadata=ADDED_LATER)
    scales: Count = field(default=1, metadata=ADDED_LATER)

    def check_options(self, name: str) -> None:
        """Raise BenchError, in the name of the attack, for options that do not fit together."""
        if self.kernel % 2 == 0:
            raise BenchError(f"{name}: kernel must be odd, so that it has a centre, not {self.kernel}")

    @property
    def changes_gradient(self) -> bool:
        return self.diversity > 0 or self.kernel > 1 or self.scales > 1

    def drawn(self, steps: int, images: int, generator: torch.Generator) -> Tensor | None:
        """Random numbers of all steps, steps×N×4, drawn before the batch is divided; None if none are needed."""
        return torch.rand(steps, images, 4, generator=generator) if self.diversity > 0 else None

    def boosted(self, objective: Objective, under: Callable[[Transform], Objective], drawn: Tensor | None) -> Objective:
        """`objective` with these options; each call is a step with its own random numbers.

        Args:
            objective: without options.
            under: transformation → the objective that sees images, and clean images that it compares them with, through
                it; for objectives that compare with no images of the batch, `seen_through(objective)`.
            drawn: `drawn` of these images, steps×N×4. Calls after the last step begin again.
        """
        if not self.changes_gradient:
            return objective
        steps = itertools.cycle([None] if drawn is None else list(drawn))

        def value(images: Tensor) -> Tensor:
            numbers = next(steps)
            seen = _Smoothed.apply(images, self.kernel) if self.kernel > 1 else images
            diverse = None if numbers is None else self._diverse(numbers, images)
            values = [
                objective(seen) if diverse is None and scale == 0 else under(_scaled(diverse, 0.5**scale))(seen)
                for scale in range(self.scales)
            ]
            return values[0] if self.scales == 1 else torch.stack(values).mean(dim=0)

        return value

    def _diverse(self, numbers: Tensor, images: Tensor) -> Transform:
        """The transformation of input diversity; `numbers` is N×4 in [0, 1)."""
        chosen, shrunk, top, left = numbers.to(images.device, images.dtype).unbind(dim=1)
        shares = torch.where(chosen < self.diversity, 1.0 - (1.0 - self.diversity_resize) * shrunk, 1.0)
        down = _resampling(images.shape[-2], shares, top)
        across = _resampling(images.shape[-1], shares, left)
        return lambda seen: down.unsqueeze(1) @ seen @ across.unsqueeze(1).mT


@dataclass(frozen=True, kw_only=True)
class TransferOptions(GradientOptions):
    """Options on the gradient and on the steps of signed-gradient ascent.

    Attributes:
        momentum: μ of MI-FGSM (Dong et al., CVPR 2018, arXiv 1710.06081): the step follows the sign of
            m ← μ·m + g / mean|g|. 0 for the gradient alone; 1 is usual.
        nesterov: take the gradient ahead, at x + step·μ·m (NI; Lin et al., ICLR 2020, arXiv 1908.06281), clipped to
            [0, 1]. Requires momentum. Not on a source adapted to a detector, which judges the image itself.
        step_decay: "linear" for a step that falls linearly to 0; it starts at `step_size`, by default 2·epsilon.
    """

    momentum: NonNegative = field(default=0.0, metadata=ADDED_LATER)
    nesterov: bool = field(default=False, metadata=ADDED_LATER)
    step_decay: Literal["none", "linear"] = field(default="none", metadata=ADDED_LATER)

    def check_options(self, name: str) -> None:
        super().check_options(name)
        if self.nesterov and not self.momentum:
            raise BenchError(f"{name}: nesterov looks ahead along the momentum: set momentum, usually to 1")

    def steps_of(self, threat: ThreatModel, count: int, size: float | None) -> Steps:
        """`count` steps of `size` in 1/255; None for the default: 2.5·epsilon/count, or 2·epsilon if it falls."""
        falling = self.step_decay == "linear"
        default = 2.0 * threat.radius if falling else 2.5 * threat.radius / count
        size = default if size is None else size / 255.0
        return Steps(count, size, self.momentum, self.nesterov, falling)


def options_of(attack: GradientOptions, kind: type[GradientOptions]) -> dict[str, Any]:
    """The options of `attack` that are those of `kind`, for an attack of another class."""
    return {each.name: getattr(attack, each.name) for each in fields(kind)}


def seen_through(objective: Objective) -> Callable[[Transform], Objective]:
    """For `boosted`: an objective whose references, if it has any, are left as they are."""
    return lambda transform: lambda images: objective(transform(images))


def with_own_images(build: Callable[[View], Objective], view: View) -> Callable[[Transform], Objective]:
    """For `boosted`: an objective that compares images with clean ones of the batch, which see the same."""

    def under(transform: Transform) -> Objective:
        moved = build(View(view.source, replace(view.batch, images=transform(view.batch.images))))
        return lambda images: moved(transform(images))

    return under


def _scaled(diverse: Transform | None, factor: float) -> Transform:
    if diverse is None:
        return lambda images: images * factor
    return diverse if factor == 1.0 else lambda images: diverse(images) * factor


def _resampling(side: int, shares: Tensor, places: Tensor) -> Tensor:
    """Matrices N×side×side that shrink a side to a share of it, bilinearly, at a place in the room that is left.

    Products of matrices have deterministic gradients on a GPU, which its kernels for resizing have not.

    Args:
        shares: N in (0, 1]; 1 gives the identity.
        places: N in [0, 1], 0 for the start of the side and 1 for its end.
    """
    pixels = torch.arange(side, device=shares.device, dtype=shares.dtype)
    within = pixels + 0.5 - ((1.0 - shares) * places * side).unsqueeze(1)
    inside = (within > 0) & (within < shares.unsqueeze(1) * side)
    read = (within / shares.unsqueeze(1) - 0.5).clamp(0.0, side - 1.0)
    return (1.0 - (read.unsqueeze(2) - pixels).abs()).clamp_min(0.0) * inside.unsqueeze(2)


def smoothed(gradient: Tensor, size: int) -> Tensor:
    """N×C×H×W convolved with a Gaussian of `size`×`size` pixels and σ = `SIGMA`; zeros beyond the border."""
    offsets = torch.arange(size, device=gradient.device, dtype=gradient.dtype) - size // 2
    weights = torch.exp(-0.5 * (offsets / SIGMA).square())
    weights = (weights / weights.sum()).expand(gradient.shape[1], 1, size)
    down = functional.conv2d(gradient, weights.unsqueeze(3), padding=(size // 2, 0), groups=gradient.shape[1])
    return functional.conv2d(down, weights.unsqueeze(2), padding=(0, size // 2), groups=gradient.shape[1])


class _Smoothed(torch.autograd.Function):
    """The identity, whose gradient is smoothed."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, size: int) -> Tensor:
        ctx.size = size
        return images.view_as(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return smoothed(gradient, ctx.size), None
