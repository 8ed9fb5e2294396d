"""Properties of a victim that hide its gradients, unless an attack that knows them succeeds."""

from __future__ import annotations

from collections.abc import Iterator

from reid_attack_bench.report.analysis.audit.arms import Arm, difference, loss, strongest
from reid_attack_bench.report.analysis.audit.subject import Found, Subject

ZERO_GRADIENTS = 0.5
"""Largest accepted share of image values with zero gradient: a network that crops or strides past some pixels stays
below it, one that rounds does not."""


def found(subject: Subject) -> Iterator[Found]:
    """Zero gradients, randomness and detectors; an adaptive attack waives them only where it succeeded."""
    clean = subject.clean
    failed = _failed(subject)
    zero = clean.value("zero_gradient")
    if zero > ZERO_GRADIENTS and failed:
        yield "zero gradients", f"{100 * zero:.0f} % of the image values have zero gradient, and {failed}"
    if clean.randomised and failed:
        yield "randomised without EOT", f"two forward passes of one image differ, and {failed}"
    if clean.detector == "list" and subject.adaptive and not any(arm.sees_gallery for arm in subject.adaptive):
        yield "detector not attacked", "it judges result lists, and no adaptive attack on queries saw the gallery"
    elif clean.detector == "rejects" and subject.adaptive:
        yield (
            "detector not attacked",
            "it rejects queries without a suspicion score that an adaptive attack could minimise",
        )
    elif clean.detector and failed:
        yield "detector not attacked", f"it rejects queries, and {failed}"


def _failed(subject: Subject) -> str:
    """Why no adaptive attack waives a flag; empty if one succeeded."""
    if not subject.adaptive:
        return "no adaptive attack was run"
    if all(arm.broken for arm in subject.adaptive) or any(_succeeds(subject, arm) for arm in subject.adaptive):
        return ""
    best = strongest(subject.adaptive)
    assert best is not None
    return f"no adaptive attack succeeded: {best.name} leaves mAP {best.mean_ap:.1f}, no less than what it must beat"


def _succeeds(subject: Subject, arm: Arm) -> bool:
    """Whether an adaptive attack leaves less than the strongest control; than plain attacks where there is none."""
    plain = [each for each in subject.own if not each.adaptive and each.epsilon <= arm.epsilon]
    other = subject.control(arm.epsilon, arm.pixels) or strongest(plain)
    if other is None:
        return loss(subject.results, subject.clean_ap, arm).positive
    return difference(subject.results, other, arm).positive
