"""Adaptive attacks: EOT, BPDA and detector evasion (Athalye et al., ICML 2018, arXiv 1802.00420).

An adapted victim replaces the source while an attack is fitted or crafted. Every attack becomes adaptive by
configuration (`adaptive` in a suite), without code of its own.

- **EOT**, expectation over transformation: embeddings and logits of a randomised victim are averaged over several
  draws, so the gradient is that of the mean.
- **BPDA**, backward pass differentiable approximation: operations without a useful gradient are differentiated as the
  identity (straight-through). These are every rounding (round, floor, ceil, trunc) and detach inside the victim, and
  its `purify` if it then still has no gradient, or one that finite differences contradict. If that `purify` is
  deterministic, only the part of the gradient that the transformation passes is used, at the cost of two more calls:
  JPEG, for example, removes most of what the identity would have an attack add.
- **Selective gradient descent** (Bryniarski et al., arXiv 2106.15023) against detectors: the shipped gradient attacks
  descend the `suspicion` of an adapted victim while an image is refused.
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
"""Version of the adaptation, part of the keys of adaptive attacks; raise it when results change."""

Transformation = Callable[[Tensor], Tensor]
"""Images N×3×H×W in [0, 1] → images of the same shape and range."""

_ROUNDINGS = ("round", "floor", "ceil", "trunc", "fix")

_ROUND_FUNCTIONS = {getattr(place, name) for place in (torch, torch.Tensor) for name in _ROUNDINGS}

_DETACH_FUNCTIONS = {torch.Tensor.detach, torch.detach}

_STEP = 0.05
"""Step of finite differences, in [0, 1] units: many 8-bit levels, but a small change of an image."""

_PROBE = 4 / 255
"""Mean magnitude of the probing step of BPDA, in [0, 1] units: above 8-bit rounding, below usual budgets."""

_PASSED = 0.05
"""Least share of the probing step that a transformation must pass to be approximated by its response."""


class Adapted(WrappedVictim):
    """A victim as seen by an adaptive attack: EOT over `samples` draws, BPDA for what is not differentiable.

    Args:
        victim: the model; it is not changed.
        samples: draws to average over; 1 for a deterministic victim.
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
    """The stand-in for `victim` that an adaptive attack is fitted or crafted on.

    Args:
        victim: the defended model.
        samples: EOT draws; only used if `randomised`.
        randomised: whether two calls on one image may differ, as declared or as measured.
    """
    return Adapted(victim, samples if randomised else 1)


def opaque(victim: Victim, like: Tensor) -> list[Victim]:
    """The victims among `victim` and its inner victims whose `purify` has no usable gradient.

    With roundings and detaches differentiated as the identity, the gradient is compared with finite differences along a
    smooth random direction. Transformations such as blurring or shifting pass: their own gradient is better than that
    of the identity.

    Args:
        victim: the defended model.
        like: N×3×H×W; images of the same size, type and device are used for the comparison.
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
    """Context in which roundings and detaches have the gradient of the identity, and `purify` of each of `layers` that
    of `_Through`.
    """
    with ExitStack() as shadows:
        for layer in layers:
            probed = not layer.randomised  # two random draws differ by more than the probing step
            through = functools.partial(_through, probed)
            shadows.enter_context(shadowed_purify(layer, through))
        shadows.enter_context(_StraightThrough())
        yield


@contextmanager
def shadowed_purify(victim: Victim, replacement: Callable[[Transformation, Tensor], Tensor]) -> Iterator[None]:
    """Context in which `victim.purify(images)` returns `replacement(purify, images)`, given the original purify."""
    purify = victim.purify
    victim.purify = lambda images: replacement(purify, images)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del victim.purify  # the instance attribute that shadows the method


class _StraightThrough(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _DETACH_FUNCTIONS:
            return args[0]
        result = func(*args, **(kwargs or {}))
        if func in _ROUND_FUNCTIONS and isinstance(result, Tensor) and args[0].requires_grad:
            return args[0] + (result - args[0]).detach()
        return result


def _through(probed: bool, transform: Transformation, images: Tensor) -> Tensor:
    return _Through.apply(images, transform, probed)


class _Through(torch.autograd.Function):
    """A transformation without a useful gradient, differentiated by BPDA.

    If `probed`, the backward pass returns the response of the transformation to a small step along the gradient. For
    projections, and approximately for most compressions and smoothings, this is the product with the transposed
    Jacobian. Images that hardly respond, and all images if not `probed`, get the gradient of the identity.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, transform: Transformation, probed: bool) -> Tensor:
        ctx.save_for_backward(images)
        ctx.transform, ctx.probed = transform, probed
        return transform(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        if not ctx.probed:
            return gradient, None, None
        (images,) = ctx.saved_tensors
        size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)
        step = gradient * (_PROBE / size)
        change = ctx.transform((images + step).clamp(0, 1)) - ctx.transform((images - step).clamp(0, 1))
        response = change * (size / (2 * _PROBE))
        passed = response.abs().mean(dim=(1, 2, 3), keepdim=True) > _PASSED * size
        return torch.where(passed, response, gradient), None, None


def _mean(values: list[Any]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean(dim=0)
