"""Points and losses of gradient checks: what attacks differentiate, where they do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.checks.subject import Subject, same_draw
from reid_attack_bench.contracts import Victim, paired


@dataclass(frozen=True)
class Point:
    """Images of one crafting batch, and the loss that is differentiated there.

    Attributes:
        name: for people.
        images: N×3×H×W in [0, 1].
        targets: N×D, embeddings to move away from or towards, or a direction; N classes for "logits".
        kind: "away" and "towards" as metric attacks, "along" the direction, "logits" for their cross-entropy.
        cosine: whether the distance of "away" and "towards" is that of normalised embeddings.
        own: whether it is the comparison of the victim's own.
    """

    name: str
    images: Tensor
    targets: Tensor
    kind: str
    cosine: bool
    own: bool = False

    def loss(self, victim: Victim, images: Tensor) -> Tensor:
        """N values, ascended by an attack."""
        if self.kind == "logits":
            scores = victim.logits(images)
            assert scores is not None
            return functional.cross_entropy(scores, self.targets, reduction="none")
        embeddings = victim.embed(images)
        targets = self.targets.to(embeddings)
        if self.kind == "along":
            return (embeddings * targets).sum(dim=1)
        if self.own:
            distance = paired(victim, embeddings, targets)
            return distance if self.kind == "away" else -distance
        if self.cosine:
            embeddings, targets = functional.normalize(embeddings, dim=1), functional.normalize(targets, dim=1)
        distance = (embeddings - targets).square().sum(dim=1)
        return distance if self.kind == "away" else -distance

    def part(self, rows: Tensor) -> Point:
        """Some of its images."""
        return replace(self, images=self.images[rows], targets=self.targets[rows])

    def some(self, count: int) -> Tensor:
        """Indices of up to `count` images across the batch."""
        return torch.linspace(0, len(self.images) - 1, min(count, len(self.images))).round().long()


def points(subject: Subject) -> Iterator[Point]:
    """Points of an attack: the clean images, after a small random start, and at and beyond the edge of a budget.

    Images keep away from 0 and 1, so that there is room for a step in both directions.
    """
    clean, cosine = 0.02 + 0.96 * subject.crafting, subject.declared == "cosine"
    with same_draw(clean.device):
        embeddings = subject.embed(clean)
    generator = torch.Generator().manual_seed(0)

    def noise(radius: float) -> Tensor:
        return (2.0 * torch.rand(clean.shape, generator=generator).to(clean) - 1.0) * radius / 255

    def moved(change: Tensor) -> Tensor:
        return (clean + change).clamp(0.01, 0.99)

    weights = torch.randn(embeddings.shape, generator=generator).to(embeddings)
    corner = moved(noise(1.0).sign() * 8 / 255)
    start, eight, far = moved(noise(2.0)), (corner * 255).round() / 255, moved(noise(48.0))
    own = subject.victim.own_comparison
    yield Point("on clean images", clean, weights, "along", cosine)
    if own and not subject.victim.differentiable_comparison:  # the features have gradients, their distances have none
        yield Point("after a random start", start, weights, "along", cosine)
        yield Point("at 8/255, in 8 bits", eight, weights, "along", cosine)
        yield Point("within 48/255", far, weights, "along", cosine)
        return
    yield Point("after a random start", start, embeddings, "away", cosine, own)
    yield Point("at 8/255, in 8 bits", eight, embeddings.roll(1, dims=0), "towards", cosine, own)
    yield Point("within 48/255", far, embeddings, "away", cosine, own)


def after_a_start(subject: Subject) -> Point:
    """The point of `points` at which most gradients are taken."""
    return list(points(subject))[1]


def on_logits(subject: Subject) -> Point:
    """As pgd: away from the class of each image, after a random start."""
    point = after_a_start(subject)
    with torch.no_grad(), same_draw(point.images.device):
        scores = subject.victim.logits(point.images.clone())
    assert scores is not None
    return replace(point, targets=scores.argmax(dim=1), kind="logits")


def gradient_of(victim: Victim, point: Point) -> Tensor | None:
    """Gradient of the sum of the losses of `point`, with the same random draw each time; None if there is none."""
    leaf = point.images.detach().clone().requires_grad_(True)
    with torch.enable_grad(), same_draw(leaf.device):
        values = point.loss(victim, leaf)
        return torch.autograd.grad(values.sum(), leaf, allow_unused=True)[0] if values.requires_grad else None
