"""Check of gradients against finite differences."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from reid_attack_bench.checks.embed import embed
from reid_attack_bench.checks.subject import MOVED, Observation, Subject, fault, note, ok, same_draw

WRONG_GRADIENT = 0.3
"""Relative error against finite differences above which a gradient is examined; kinks cause 0.1 or 0.2."""

ZERO_GRADIENTS = 0.5
"""Share of image values without a gradient from which there is a note."""

_STEPS = (
    2 / 255,
    0.5 / 255,
    0.125 / 255,
)  # of finite differences: long ones cross kinks, short ones suffer from rounding


def gradient(subject: Subject) -> Iterator[Observation]:
    """Check that the gradient exists, is finite and not zero, and agrees with finite differences."""
    victim = subject.victim
    if not victim.differentiable:
        yield note("declared differentiable = False: attacks that need gradients can only be transferred to it")
        return
    images = (0.02 + 0.96 * subject.few[:4]).requires_grad_(True)  # room for a step in both directions
    with same_draw(images.device):
        embeddings = embed(victim, images, subject.name)
    if not embeddings.requires_grad:
        yield fault(
            "the embeddings carry no gradient",
            "look for detach, no_grad, .data or NumPy in embed; or declare differentiable = False to use "
            "it only as a target",
        )
        return
    generator = torch.Generator().manual_seed(0)
    # along a random direction, because the length of a normalised embedding is constant
    weights = torch.randn(embeddings.shape, generator=generator).to(embeddings)
    (gradient,) = torch.autograd.grad((embeddings * weights).sum(), images, allow_unused=True)
    if gradient is None:
        yield fault("no gradient reaches the images", "look for detach; or declare differentiable = False")
    elif not torch.isfinite(gradient).all():
        yield fault(
            "the gradient is NaN or infinite",
            "look for square roots, norms and divisions at zero, and add a small number there",
        )
    else:
        yield _compared(subject, images.detach(), gradient, weights, generator)


def _compared(
    subject: Subject, images: Tensor, gradient: Tensor, weights: Tensor, generator: torch.Generator
) -> Observation:
    excused = subject.purifies or subject.victim.randomised
    advice = (
        "attack it with adaptive: true, which replaces the gradient of purify by that of the identity"
        if subject.purifies
        else "put the transformation into purify and attack it with adaptive: true, or declare differentiable = False"
    )
    zero = float((gradient == 0).float().mean())
    if zero == 1.0:
        noise = torch.rand(images.shape, generator=generator).to(images).sub(0.5).mul(16 / 255)
        with same_draw(images.device):
            base = subject.embed(images)
        with same_draw(images.device):
            moved = subject.moved(subject.embed((images + noise).clamp(0, 1)), base)
        seen = f"the gradient is zero everywhere, though noise of 8/255 moves embeddings by {100 * moved:.2g} % of the "
        return (note if excused else fault)(f"{seen}distance between images: look for rounding or counting", advice)
    error, uphill = _against_differences(subject, images, gradient, weights, generator)
    drawn = subject.victim.randomised or subject.varies > MOVED
    seen = f"it differs from finite differences by {100 * error:.2g} %"
    seen += ", with the same random draw in each pass" if drawn else ""
    if error > WRONG_GRADIENT and not uphill:
        return (note if excused else fault)(
            f"{seen} and is not an ascent direction: attacks would look weaker than they are", advice
        )
    if error > WRONG_GRADIENT:
        return note(
            f"{seen}, but is an ascent direction", "fix the backward pass unless it is an intended approximation"
        )
    if zero >= ZERO_GRADIENTS:
        return note(
            f"{100 * zero:.0f} % of the images' values have no gradient; {seen}",
            "is part of the image cut off, or resized without antialias? If something rounds: " + advice,
        )
    return ok(f"finite, {100 * (1 - zero):.0f} % of values have a gradient; {seen}")


def _against_differences(
    subject: Subject, images: Tensor, gradient: Tensor, weights: Tensor, generator: torch.Generator
) -> tuple[float, bool]:
    """Relative error of the gradient along its large directions, and whether it is better than random ones."""

    def difference(direction: Tensor, step: float) -> Tensor:
        ends = []
        for end in (images + step * direction, images - step * direction):
            with same_draw(images.device):
                ends.append((subject.embed(end).double() * weights).sum(dim=1))
        return (ends[0] - ends[1]) / (2 * step)

    sign = gradient.sign()
    half = (torch.rand(images[:, :1].shape, generator=generator) < 0.5).to(images)
    directions = (sign, sign * half, gradient / gradient.abs().amax())
    claimed = torch.stack([(gradient * direction).flatten(1).double().sum(dim=1) for direction in directions])
    errors = []
    for step in _STEPS:
        seen = torch.stack([difference(direction, step) for direction in directions])
        errors.append(float((seen - claimed).norm() / claimed.norm()))
    far = 4 / 255
    draws = [(torch.rand(images.shape, generator=generator) - 0.5).sign().to(images) for _ in range(3)]
    random = torch.stack([difference(draw, far).abs().mean() for draw in draws]).mean()
    return min(errors), float(difference(sign, far).mean()) > 2.0 * float(random)
