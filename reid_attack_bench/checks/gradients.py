"""Checks of gradients: at the batch size of attacks, with their losses, where they take them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from reid_attack_bench.adversary.adaptive import adapt
from reid_attack_bench.checks.differences import ATTACK_STEPS, Differences
from reid_attack_bench.checks.losses import Point, gradient_of, points
from reid_attack_bench.checks.subject import Observation, Subject, fault, note, ok, same_draw

WRONG_GRADIENT = 0.3
"""Relative error against finite differences above which a gradient is compared with random directions."""

ASCENT = 0.12
"""Least cosine with the true gradient at the steps of attacks, where finite differences contradict a gradient."""

COMPLETE = 0.5
"""Least cosine with the true gradient where finite differences agree; below it a part may be missing."""

SMOOTH = 0.05
"""Largest relative error at which a gradient is compared with the norm of the true one."""

STIFF = 0.4
"""Least cosine with a change of 0.5/255 without a note: embeddings may be saturated."""

VANISHED = 0.01
"""Least norm of a gradient relative to that which changes of 2/255 suggest."""

DEAD = 0.25
"""Share of images without any gradient from which there is a fault."""

ZERO_GRADIENTS = 0.5
"""Share of image values without a gradient from which there is a note."""

_DRAWS = 4  # of a randomised victim

_ROWS = 4  # images of a batch on which finite differences are taken

_INTO_PURIFY = "put the transformation into purify and attack it with adaptive: true, or declare differentiable = False"

_ADAPTIVE = "attack it with adaptive: true, which replaces the gradient of purify by that of the identity"


def gradient(subject: Subject) -> Iterator[Observation]:
    """Check that gradients exist, are finite, reach the images, and agree with finite differences.

    They are those of a whole crafting batch; finite differences are taken on some of its images.
    """
    if not subject.victim.differentiable:
        yield note("declared differentiable = False: attacks that need gradients can only be transferred to it")
        return
    differences, errors, zero = Differences(subject), [(0.0, "")], 0.0
    hints: list[Observation] = []
    for point in points(subject):
        if subject.randomised:  # what it draws for an image depends on the batch
            point = point.part(point.some(_ROWS))
        found = gradient_of(subject.victim, point)
        problem = unusable(subject, point, found)
        if not problem and found is not None:
            zero = max(zero, float((found == 0).float().mean()))
            error, problem = compared(subject, differences, point, found)
            errors.append((error, point.name))
        if problem:
            level, evidence, advice = problem
            hints.append((level, f"{point.name}, {len(point.images)} at a time: {evidence}", advice))
        if problem and level == "fault":
            break
    if hints:
        yield hints[-1] if hints[-1][0] == "fault" else hints[0]
        return
    error, where = max(errors)
    seen = f"it differs from finite differences by {100 * error:.2g} % at most, {where}"
    seen += ", with the same random draw in each pass" if subject.randomised else ""
    if zero >= ZERO_GRADIENTS:
        yield note(
            f"{100 * zero:.0f} % of the images' values have no gradient; {seen}",
            f"is part of the image cut off, or resized without antialias? If something rounds: {_INTO_PURIFY}",
        )
        return
    yield ok(f"finite, {100 * (1 - zero):.0f} % of values have a gradient; {seen}")


def unusable(subject: Subject, point: Point, gradient: Tensor | None) -> Observation | None:
    """What is wrong with a gradient that no attack can use."""
    if gradient is None:
        return fault(
            "the embeddings carry no gradient that reaches the images",
            "look for detach, no_grad, .data or NumPy in embed; or declare differentiable = False to use "
            "it only as a target",
        )
    if not torch.isfinite(gradient).all():
        return fault(
            "the gradient is NaN or infinite",
            "look for square roots, norms and divisions at zero, and add a small number there",
        )
    dead = float((gradient == 0).flatten(1).all(dim=1).float().mean())
    if dead < DEAD:
        return None
    noise = torch.rand(point.images.shape, generator=torch.Generator().manual_seed(0)).to(gradient).sub(0.5)
    with same_draw(gradient.device):
        base = subject.embed(point.images)
    with same_draw(gradient.device):
        moved = subject.moved(subject.embed((point.images + noise * 16 / 255).clamp(0, 1)), base)
    who = "everywhere" if dead == 1.0 else f"on {100 * dead:.0f} % of the images"
    seen = f"the gradient is zero {who}, though noise of 8/255 moves embeddings by {100 * moved:.2g} % of the distance "
    return _blamed(subject, f"{seen}between images: look for rounding, counting or saturation")


def compared(
    subject: Subject, differences: Differences, point: Point, gradient: Tensor
) -> tuple[float, Observation | None]:
    """Relative error against finite differences, and what is wrong with a gradient of a whole batch."""
    rows = point.some(_ROWS)
    some, part = gradient[rows], point.part(rows)
    double = differences.double(part)
    error, step = differences.error(part, some, double)
    seen = f"the gradient differs from finite differences by {100 * error:.2g} %"
    if error > WRONG_GRADIENT:
        found = max(differences.alignment(part, some, step) for step in ATTACK_STEPS)
        if found < ASCENT:
            seen += f" and is not an ascent direction (cosine {found:.2f}): attacks would look weaker than they are"
            return error, _blamed(subject, seen)
        seen += f", but is an ascent direction (cosine {found:.2f})"
        return error, note(seen, "fix the backward pass unless it is an intended approximation")
    share = float(
        some.flatten(1).double().norm(dim=1).sum() / differences.norm(part, ATTACK_STEPS[1]).sum().clamp_min(1e-300)
    )
    if share < VANISHED:
        seen = f"the gradient has {share:.1g} of the norm that changes of 2/255 suggest, so it says nothing about them"
        return error, _blamed(subject, f"{seen}: look for saturation, rounding or counting")
    near = differences.alignment(part, some, ATTACK_STEPS[2])
    if near >= COMPLETE or error > SMOOTH or point.kind == "away":
        return error, None
    found = 1.0 if double is None else differences.alignment(part, some, step, double)
    if found < COMPLETE:
        seen = f"the gradient has {100 * max(found, 0.0):.0f} % of the norm that finite differences suggest"
        return error, _blamed(subject, f"{seen}: a part of it is missing")
    if near < STIFF:
        seen = f"the gradient holds for tiny changes only (cosine {near:.2f} with a change of 0.5/255)"
        return error, note(f"{seen}: attacks need small steps", "are embeddings saturated, as by a sigmoid?")
    return error, None


def adaptive_gradient(subject: Subject) -> Iterator[Observation]:
    """Check that the gradient which an adaptive attack takes of a defended victim is an ascent direction."""
    victim = subject.victim
    if not (subject.purifies or subject.randomised) or not (subject.purifies or victim.differentiable):
        return
    point = list(points(subject))[2]  # towards another image: far from the top and the bottom of its loss
    found = gradient_of(adapt(victim, _DRAWS, randomised=subject.randomised), point)
    if found is None or not torch.isfinite(found).all() or not found.any():
        how = "none" if found is None else "zero" if torch.isfinite(found).all() else "NaN or infinite"
        yield fault(f"the gradient of the adapted victim is {how}", "only what is in purify can be approximated")
        return
    rows = point.some(2 * _ROWS)
    part, differences = point.part(rows), Differences(subject, _DRAWS if subject.randomised else 1)
    cosine = -1.0
    for step in ATTACK_STEPS[:2]:
        cosine = max(cosine, differences.alignment(part, found[rows], step))
        if cosine >= ASCENT:
            yield ok(f"that of an adaptive attack is an ascent direction (cosine {cosine:.2f})")
            return
    yield fault(
        f"an adaptive attack has a straight-through gradient of a wrong direction (cosine {cosine:.2f} with that which "
        "random directions suggest): it would look weaker than it is",
        "give purify a backward pass of its own, or none, and keep everything else in embed differentiable",
    )


def _blamed(subject: Subject, evidence: str) -> Observation:
    """A fault; a note for a victim that is meant to be attacked adaptively, see the check of the adapted victim."""
    excused = subject.purifies or subject.victim.randomised
    return (note if excused else fault)(evidence, _ADAPTIVE if subject.purifies else _INTO_PURIFY)
