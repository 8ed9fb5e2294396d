"""Checks of purify and rejects."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from reid_attack_bench.adversary.adaptive import shadowed_purify
from reid_attack_bench.checks.subject import BATCH, Observation, Subject, fault, kind_of, note, ok

REFUSED = 0.2
"""Largest share of rejected clean images without a note."""

USELESS = 0.5
"""Largest share without a fault."""


def purify(subject: Subject) -> Iterator[Observation]:
    if not subject.purifies:
        return
    victim, images = subject.model, subject.few[:4]
    with torch.no_grad():
        result = victim.purify(images.clone())
    if not isinstance(result, Tensor) or result.shape != images.shape:
        yield fault(
            f"purify returned {kind_of(result)} for images {tuple(images.shape)}", "return images of that shape"
        )
        return
    if not torch.isfinite(result).all() or result.min() < -0.01 or result.max() > 1.01:
        yield fault(
            f"purify returned values from {float(result.min()):.2f} to {float(result.max()):.2f}",
            "stay in [0, 1]: normalise after purify, in embed",
        )
        return
    seen = []

    def watched(purify: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        seen.append(len(images))
        return purify(images)

    with shadowed_purify(victim, watched):
        subject.embed(images)
    if seen:
        yield ok("its values stay in [0, 1], and embed calls it")
    else:
        yield fault("embed does not call purify", "call self.purify(images) in embed and in logits")


def rejects(subject: Subject) -> Iterator[Observation]:
    parts = []
    for images in subject.images.split(BATCH):
        with torch.no_grad():
            refused = subject.victim.rejects(images.clone())
        if refused is None:
            return
        if not isinstance(refused, Tensor) or refused.dtype != torch.bool or refused.shape != images.shape[:1]:
            yield fault(f"rejects returned {kind_of(refused)} for {len(images)} images", "return a bool tensor of N")
            return
        parts.append(refused)
    suspicion = subject.victim.suspicion(subject.images[:2].clone().requires_grad_(True))
    if suspicion is None or not suspicion.requires_grad:
        what = "implement suspicion: N values, positive for rejected images, differentiable in the images"
        yield note("no attack can evade its detector", what)
    else:
        yield from _wrong_way(subject)
    share = float(torch.cat(parts).float().mean())
    seen = f"{100 * share:.1f} % of clean images are rejected"
    if share > USELESS:
        yield fault(seen, "a detector that rejects most clean queries is useless: loosen the threshold")
    elif share > REFUSED:
        yield note(seen, "each rejected clean query is a miss: loosen the threshold")
    else:
        yield ok(seen)


def _wrong_way(subject: Subject) -> Iterator[Observation]:
    """A fault if steps down the gradient of suspicion do not lower it."""
    images = subject.few.clone()
    images += (torch.rand(images.shape, generator=torch.Generator().manual_seed(0)).to(images) - 0.5) * 16 / 255
    images = images.clamp(0, 1).requires_grad_(True)
    suspicion = subject.victim.suspicion(images)
    assert suspicion is not None
    (gradient,) = torch.autograd.grad(suspicion.sum(), images, allow_unused=True)
    lowered = []
    for step in (0.5, 2.0):
        with torch.no_grad():
            lower = None if gradient is None else subject.victim.suspicion(images - step / 255 * gradient.sign())
        lowered.append(lower is not None and float((lower - suspicion.detach()).mean()) < 0.0)
    if not any(lowered):
        yield fault(
            "steps down the gradient of suspicion do not lower it: no attack could evade the detector",
            "make suspicion differentiable in the images, with its true gradient",
        )
