"""Comparison of attacks by the victim's own gradients with attacks that do without: controls, queries, transfer.

Whatever such an attack finds within a budget, an attack by gradients with that budget could have found. Where it leaves
more, the gradients lead elsewhere, and what it leaves is no measure of robustness.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reid_attack_bench.report.analysis.audit.arms import Arm, difference, loss
from reid_attack_bench.report.analysis.audit.subject import Found, Subject, within

EFFECT_EPSILON = 8
"""Epsilon (1/255) from which an attack by gradients must have an effect on an honest victim: the most robust
classifiers known lose a fifth of their accuracy at 8/255 (RobustBench, arXiv 2010.09670, CIFAR-10: 93.7 to 73.7 %)."""

EFFECT = 0.1
"""Share of the clean mAP that such an attack may have taken, by the interval, from a victim that is not flagged: half
of that fifth."""


def found(subject: Subject) -> Iterator[Found]:
    clean = 100.0 * float(np.nanmean(subject.clean_ap))
    for epsilon, pixels in sorted({(arm.epsilon, arm.pixels) for arm in subject.own}):
        best = subject.by_gradients(epsilon, pixels)
        if best.broken:
            continue
        yield from _transferred(subject, best, epsilon, pixels)
        if (epsilon, pixels) not in subject.budgets:
            continue  # one step is no measure of gradients
        without = loss(subject.results, subject.clean_ap, best)
        if epsilon >= EFFECT_EPSILON and not pixels and not without.positive and without.high < EFFECT * clean:
            yield "attack without effect", f"clean against {best.name}: {without.text}"
        yield from _controls(subject, best, epsilon, pixels)
        yield from _queries(subject, best, epsilon, pixels)


def _controls(subject: Subject, best: Arm, epsilon: int, pixels: int) -> Iterator[Found]:
    """Gradients that lead no further than chance.

    A control that is stronger says that they fail, at whatever epsilon. Where neither is, the victim may be robust to
    both, or hide its gradients: then attacks with larger budgets decide, see `_vindicated`.
    """
    control = subject.control(epsilon, pixels)
    if control is None:
        return
    gain = difference(subject.results, control, best)
    if gain.positive:
        return
    stronger = difference(subject.results, best, control).positive
    if stronger or not _vindicated(subject, epsilon, pixels):
        yield "gradients no better than noise", f"{control.name} against {best.name}: {gain.text}"


def _vindicated(subject: Subject, epsilon: int, pixels: int) -> bool:
    """Whether gradients beat the controls clearly with every larger budget at which the controls left something.

    Noise breaks any victim at some epsilon, and gradients do so beside it, right or wrong: that both leave next to
    nothing says nothing.
    """
    clear = []
    for larger, same in subject.budgets:
        control = subject.control(larger, same) if larger > epsilon and same == pixels else None
        if control is not None and not control.broken:
            clear.append(difference(subject.results, control, subject.by_gradients(larger, same)).clear)
    return bool(clear) and all(clear)


def _queries(subject: Subject, best: Arm, epsilon: int, pixels: int) -> Iterator[Found]:
    for arm in within(subject.arms, epsilon, pixels):
        gain = difference(subject.results, best, arm) if arm.cells[0].kind == "query" else None
        if gain is not None and gain.positive:
            yield "queries stronger than gradients", f"{arm.name} against {best.name}: {gain.text}"


def _transferred(subject: Subject, best: Arm, epsilon: int, pixels: int) -> Iterator[Found]:
    for arm in within(subject.arms, epsilon, pixels):
        # an interval of every transferred attack would take most of the time of an audit
        transferred = arm.by_gradients and not arm.cells[0].own and best.mean_ap > arm.mean_ap
        gain = difference(subject.results, best, arm) if transferred else None
        if gain is not None and gain.positive:
            what = f"{arm.name} from {arm.source} is stronger than {best.name} white-box: {gain.text}"
            yield "transfer stronger than white-box", what
