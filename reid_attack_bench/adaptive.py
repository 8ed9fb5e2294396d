"""What an adversary does who knows the defence (Athalye et al., ICML 2018, arXiv 1802.00420).

An adapted victim stands for the source while an attack is fitted or crafted, so that every attack adapts by
configuration (`adaptive` in a suite) and none needs a form of its own.

- **EOT**, expectation over transformation: where the victim is randomised, embeddings and logits are means over several
  draws, so the gradient is that of the mean.
- **BPDA**, backward pass differentiable approximation, straight-through: what has no useful gradient is computed as it
  is and differentiated as the identity. That is the victim's own `purify`, and inside the victim every rounding
  (round, floor, ceil, trunc) and every detach.
- **Selective steps** (Bryniarski et al., arXiv 2106.15023) against a detector: the shipped gradient attacks climb down
  the `suspicion` of an adapted victim for as long as an image is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from reid_attack_bench.contracts import Victim, WrappedVictim

_ROUNDINGS = ("round", "floor", "ceil", "trunc", "fix")
_FLAT = {getattr(place, name) for place in (torch, torch.Tensor) for name in _ROUNDINGS}
Transformation = Callable[[Tensor], Tensor]
"""N×3×H×W in [0, 1] → the same."""

_CUTS = {torch.Tensor.detach, torch.detach}


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

    def embed(self, images: Tensor) -> Tensor:
        with straight_through(self.victim):
            return _mean([self.victim.embed(images) for _ in range(self.samples)])

    def logits(self, images: Tensor) -> Tensor | None:
        with straight_through(self.victim):
            first = self.victim.logits(images)
            if first is None:
                return None
            return _mean([first, *(self.victim.logits(images) for _ in range(self.samples - 1))])

    def suspicion(self, images: Tensor) -> Tensor | None:
        with straight_through(self.victim):
            return self.victim.suspicion(images)

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        with straight_through(self.victim):
            embeddings, logits = zip(*(self.victim.outputs(images) for _ in range(self.samples)), strict=True)
        return _mean(list(embeddings)), None if logits[0] is None else _mean(list(logits))


def adapt(victim: Victim, samples: int, *, randomised: bool) -> Victim:
    """The victim that an adaptive attack crafts on.

    Args:
        samples: of EOT, used where the victim is `randomised`, by its own word or found so.
    """
    return Adapted(victim, samples if randomised else 1)


@contextmanager
def straight_through(victim: Victim) -> Iterator[None]:
    """Within it roundings, detaches and every purify of `victim`, and of the victims that it is made of, have the
    gradient of the identity.
    """
    layers = [part for part in victim.modules() if isinstance(part, Victim)]
    with ExitStack() as shadows:
        for layer in layers:
            shadows.enter_context(shadowed_purify(layer, _identity_gradient))
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


def _identity_gradient(transform: Transformation, images: Tensor) -> Tensor:
    with torch.no_grad():
        change = transform(images) - images
    return images + change


def _mean(values: list[Any]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean(dim=0)
