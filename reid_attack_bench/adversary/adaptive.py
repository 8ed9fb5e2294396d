"""What an adversary does who knows the defence (Athalye et al., ICML 2018, arXiv 1802.00420).

An adapted victim stands for the source while an attack is fitted or crafted, so that every attack adapts by
configuration (`adaptive` in a suite) and none needs a form of its own.

- **EOT**, expectation over transformation: where the victim is randomised, embeddings and logits are means over several
  draws, so the gradient is that of the mean.
- **BPDA**, backward pass differentiable approximation, straight-through: what has no useful gradient is computed as it
  is and differentiated as the identity. That is every rounding (round, floor, ceil, trunc) and every detach inside the
  victim, and its `purify` where that has no gradient even then, or one that finite differences contradict. A purify
  that is not random gives something better than the identity, for the price of two more calls: the part of the gradient
  that survives it. JPEG drops most of what the identity would have an attack add.
- **Selective steps** (Bryniarski et al., arXiv 2106.15023) against a detector: the shipped gradient attacks climb down
  the `suspicion` of an adapted victim for as long as an image is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from reid_attack_bench.contracts import Victim, WrappedVictim

VERSION = 2
"""Raise it when the same victim is adapted in another way."""

Transformation = Callable[[Tensor], Tensor]
"""N×3×H×W in [0, 1] → the same."""

_ROUNDINGS = ("round", "floor", "ceil", "trunc", "fix")

_FLAT = {getattr(place, name) for place in (torch, torch.Tensor) for name in _ROUNDINGS}

_CUTS = {torch.Tensor.detach, torch.detach}

_STEP = 0.05
"""Of finite differences, of the colour range: many levels of 8-bit colour, and little of an image."""

_NUDGE = 4 / 255
"""Mean size of the step to which a transformation answers: above the coarseness of 8 bits, below an attack's."""

_HEARD = 0.05
"""Share of a step that must come through."""


class Adapted(WrappedVictim):
    """A victim as an adaptive attack sees it.

    Args:
        victim: the model; it is not changed.
        samples: draws that a randomised victim is averaged over; 1 for a deterministic one.
    """

    def __init__(self, victim: Victim, samples: int) -> None:
        super().__init__(victim)
        self.samples = samples
        self.differentiable = self.adapted = True
        self._opaque: list[Victim] | None = None

    @contextmanager
    def _straight_through(self, images: Tensor) -> Iterator[None]:
        if self._opaque is None:
            self._opaque = opaque(self.victim, images)
        with straight_through(self._opaque):
            yield

    def embed(self, images: Tensor) -> Tensor:
        with self._straight_through(images):
            return _mean([self.victim.embed(images) for _ in range(self.samples)])

    def logits(self, images: Tensor) -> Tensor | None:
        with self._straight_through(images):
            first = self.victim.logits(images)
            if first is None:
                return None
            return _mean([first, *(self.victim.logits(images) for _ in range(self.samples - 1))])

    def suspicion(self, images: Tensor) -> Tensor | None:
        with self._straight_through(images):
            return self.victim.suspicion(images)

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        with self._straight_through(images):
            embeddings, logits = zip(*(self.victim.outputs(images) for _ in range(self.samples)), strict=True)
        return _mean(list(embeddings)), None if logits[0] is None else _mean(list(logits))


def adapt(victim: Victim, samples: int, *, randomised: bool) -> Victim:
    """The victim that an adaptive attack crafts on.

    Args:
        samples: of EOT, used where the victim is `randomised`, by its own word or found so.
    """
    return Adapted(victim, samples if randomised else 1)


def opaque(victim: Victim, like: Tensor) -> list[Victim]:
    """`victim` and the victims that it is made of, as far as the gradient of their purify cannot be used.

    It is held against finite differences along a smooth random direction, roundings and detaches being differentiated
    as the identity: blurring or moving an image has a gradient, and one that is better than the identity's.

    Args:
        like: N×3×H×W, images of this size, type and device are tried.
    """
    layers = [part for part in victim.modules() if isinstance(part, Victim)]
    generator = torch.Generator().manual_seed(0)
    images = (0.3 + 0.4 * torch.rand((2, *like.shape[1:]), generator=generator)).to(like)
    coarse = torch.randn((2, like.shape[1], 4, 2), generator=generator).to(like)
    direction = functional.interpolate(coarse, like.shape[-2:], mode="bilinear", align_corners=False)
    return [layer for layer in layers if not _has_gradient(layer.purify, images, direction)]


def _has_gradient(transform: Transformation, images: Tensor, direction: Tensor) -> bool:
    def transformed(values: Tensor) -> Tensor:
        with torch.random.fork_rng([values.device] if values.is_cuda else []), _StraightThrough():
            torch.manual_seed(0)  # the same draws each time
            return transform(values)

    with torch.enable_grad():
        leaf = images.clone().requires_grad_(True)
        along = (transformed(leaf) * direction).sum()
        gradient = torch.autograd.grad(along, leaf, allow_unused=True)[0] if along.requires_grad else None
    if gradient is None:
        return False
    with torch.no_grad():
        change = (transformed(images + _STEP * direction) - transformed(images - _STEP * direction)) / (2 * _STEP)
        claimed, seen = float((gradient * direction).sum()), float((change * direction).sum())
    return abs(claimed - seen) <= 0.5 * max(abs(claimed), abs(seen))


@contextmanager
def straight_through(layers: Iterable[Victim]) -> Iterator[None]:
    """Within it roundings and detaches have the gradient of the identity, and the purify of each of `layers` that of
    `_Through`.
    """
    with ExitStack() as shadows:
        for layer in layers:
            answers = not layer.randomised  # two draws differ by more than the step between them
            through = functools.partial(_through, answers)
            shadows.enter_context(shadowed_purify(layer, through))
        shadows.enter_context(_StraightThrough())
        yield


@contextmanager
def shadowed_purify(victim: Victim, replacement: Callable[[Transformation, Tensor], Tensor]) -> Iterator[None]:
    """Within it `victim.purify(images)` is `replacement(purify, images)`, with the purify that it has."""
    purify = victim.purify
    victim.purify = lambda images: replacement(purify, images)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del victim.purify  # what shadowed the method


class _StraightThrough(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _CUTS:
            return args[0]
        result = func(*args, **(kwargs or {}))
        if func in _FLAT and isinstance(result, Tensor) and args[0].requires_grad:
            return args[0] + (result - args[0]).detach()
        return result


def _through(answers: bool, transform: Transformation, images: Tensor) -> Tensor:
    return _Through.apply(images, transform, answers)


class _Through(torch.autograd.Function):
    """A transformation without a useful gradient. Backward: how it answers to a small step along the gradient, which is
    what a projection (and so nearly every compression or smoothing) has for its transposed Jacobian; the gradient as it
    came for images that do not answer, or where `answers` is False.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, transform: Transformation, answers: bool) -> Tensor:
        ctx.save_for_backward(images)
        ctx.transform, ctx.answers = transform, answers
        return transform(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        if not ctx.answers:
            return gradient, None, None
        (images,) = ctx.saved_tensors
        size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)
        step = gradient * (_NUDGE / size)
        change = ctx.transform((images + step).clamp(0, 1)) - ctx.transform((images - step).clamp(0, 1))
        answer = change * (size / (2 * _NUDGE))
        heard = answer.abs().mean(dim=(1, 2, 3), keepdim=True) > _HEARD * size
        return torch.where(heard, answer, gradient), None, None


def _mean(values: list[Any]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean(dim=0)
