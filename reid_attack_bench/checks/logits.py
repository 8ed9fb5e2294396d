"""Check of logits."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from reid_attack_bench.checks.differences import Differences
from reid_attack_bench.checks.gradients import DEAD, compared
from reid_attack_bench.checks.losses import gradient_of, on_logits
from reid_attack_bench.checks.subject import MOVED, Observation, Subject, fault, kind_of, note, ok


def logits(subject: Subject) -> Iterator[Observation]:
    images = subject.few[:4]
    with torch.no_grad():
        scores = subject.victim.logits(images.clone())
    if scores is None:
        yield note(
            "none: attacks that need logits cannot be crafted on this victim", "implement logits if it has a classifier"
        )
        return
    if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != len(images):
        yield fault(
            f"logits returned {kind_of(scores)} for {len(images)} images",
            f"return {len(images)}×K, the scores over its own training identities, or None",
        )
        return
    if not scores.is_floating_point() or not torch.isfinite(scores).all():
        yield fault("logits are NaN, infinite or whole numbers", "are the classifier's weights loaded?")
        return
    with torch.no_grad():
        together, scores_together = subject.victim.outputs(images.clone())
    if subject.varies <= MOVED:
        differ = subject.moved(together, subject.embed(images)) > MOVED
        same = scores_together is not None and torch.allclose(scores_together, scores, rtol=1e-2, atol=1e-3)
        if differ or not same:
            yield fault(
                f"outputs returns other {'embeddings than embed' if differ else 'scores than logits'}",
                "make outputs agree with embed and logits, or remove it",
            )
            return
    yield _usable(subject, scores)


def _usable(subject: Subject, scores: Tensor) -> Observation:
    """Whether attacks can change a class: there are several, they differ between images, and gradients reach them."""
    classes = scores.shape[1]
    if classes < 2:
        return fault(f"logits have {classes} class", "return None: fewer than two classes are no classifier")
    if not subject.collapsed and float((scores - scores[:1]).abs().max()) <= 1e-6 * max(1.0, float(scores.abs().max())):
        return fault("logits are the same for all images", "return None, or load the classifier's weights")
    if not subject.victim.differentiable or subject.randomised or subject.purifies:
        return ok(f"N×{classes}, finite")
    point = on_logits(subject)
    found = gradient_of(subject.victim, point)
    if found is None or not torch.isfinite(found).all():
        how = "no gradient" if found is None else "NaN or an infinite gradient"
        return fault(f"their cross-entropy has {how}", "compute them from the images with torch functions")
    dead = float((found == 0).flatten(1).all(dim=1).float().mean())
    if dead >= DEAD:
        return fault(
            f"the gradient of their cross-entropy is zero on {100 * dead:.0f} % of the images",
            "are they scaled? In float32 the softmax of large logits is exactly 0 or 1: divide by a temperature",
        )
    return compared(subject, Differences(subject), point, found)[1] or ok(f"N×{classes}, finite")
