"""Check that a batch gives what its parts give, with and without gradients."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from reid_attack_bench.checks.embed import embed
from reid_attack_bench.checks.losses import Point, after_a_start, gradient_of
from reid_attack_bench.checks.subject import MOVED, Observation, Subject, fault, ok

OTHER_GRADIENT = 0.25
"""Largest change of the gradient of an image, relative to its norm, that is attributed to rounding at kinks."""

_FEW = 4  # images that are looked at in small batches


def batch_size(subject: Subject) -> Iterator[Observation]:
    """Compare a crafting batch with its parts, and embeddings with and without gradients."""
    if subject.randomised:
        return
    point = after_a_start(subject)
    images = point.images
    together = embed(subject.victim, images.clone().requires_grad_(subject.victim.differentiable), subject.name)
    together = together.detach()
    with torch.no_grad():
        moved = subject.moved(embed(subject.victim, images.clone(), subject.name), together)
    with torch.inference_mode():
        inferred = embed(subject.victim, images.clone(), subject.name)
    moved = max(moved, subject.moved(inferred.clone(), together))
    if moved > MOVED:
        yield fault(
            f"embeddings move by {100 * moved:.2g} % of the distance between images when gradients are off",
            "embed must not depend on torch.is_grad_enabled(): attacks would meet another model than the ranking",
        )
        return
    whole = gradient_of(subject.victim, point) if subject.victim.differentiable else None
    if whole is not None:
        subject.first_gradient.append(whole)
    worst_answer, worst_gradient = (0.0, 1), (0.0, 1)
    for size in sorted({1, 3, 8, len(images) // 2} & set(range(1, len(images)))):
        rows = torch.arange(len(images)) if size >= 8 else point.some(max(_FEW, size))
        parts = [point.part(part) for part in rows.split(size)]
        with torch.no_grad():
            apart = torch.cat([embed(subject.victim, part.images.clone(), subject.name) for part in parts])
        worst_answer = max(worst_answer, (subject.moved(apart, together[rows]), size))
        if whole is not None:
            worst_gradient = max(worst_gradient, (_changed(subject, parts, whole[rows]), size))
    changed, size = worst_answer
    if changed > MOVED:
        yield fault(
            f"embeddings move by {100 * changed:.2g} % of the distance between images in batches of {size} instead of "
            f"{len(images)}",
            "embed each image by itself, whatever the size of the batch",
        )
        return
    changed, size = worst_gradient
    seen = f"the gradient of an image changes by {100 * changed:.2g} %"
    if changed > OTHER_GRADIENT:
        yield fault(
            f"{seen} of its norm in batches of {size} instead of {len(images)}",
            "give every batch the true gradient: attacks use other batches than this check",
        )
        return
    yield ok(f"batches of 1 to {len(images)} give the same{'' if whole is None else f'; {seen} at most'}")


def _changed(subject: Subject, parts: list[Point], whole: Tensor) -> float:
    """Largest change of the gradient of an image, relative to its norm."""
    found = [gradient_of(subject.victim, part) for part in parts]
    if any(part is None for part in found):
        return 1.0
    apart = torch.cat([part for part in found if part is not None])
    norms = torch.maximum(whole.flatten(1).double().norm(dim=1), apart.flatten(1).double().norm(dim=1))
    least = 1e-3 * norms.median()
    change = (apart - whole).flatten(1).double().norm(dim=1)
    return float((change / norms.clamp_min(least).clamp_min(1e-300)).max())
