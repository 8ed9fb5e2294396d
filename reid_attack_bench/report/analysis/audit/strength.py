"""Comparison of attacks by the victim's own gradients among themselves: steps, epsilon, restarts, no limit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reid_attack_bench.report.analysis.audit.arms import BROKEN, Arm, difference, strongest
from reid_attack_bench.report.analysis.audit.subject import Found, Subject

UNBOUNDED = 64
"""Epsilon (1/255) from which an attack must succeed on nearly every query: a quarter of the range of colours is enough
to replace what is seen."""

UNBOUNDED_RANK1 = 5.0
"""Largest Rank-1 in % accepted at epsilon >= UNBOUNDED: chance and a few queries that stay by luck."""

SEEDS = 5.0
"""Largest accepted difference between the seeds of one attack, in points of mAP."""

MORE_RESTARTS = 3.0
"""Points of mAP that the lowest per query over seeds may lie below one seed. More than that, and further restarts would
lower it again."""

LARGER = 2
"""Factor of epsilon at which the same attack must leave less."""

MUCH_LARGER = 4
"""The same for another attack of the family, whose options may be weaker."""


def found(subject: Subject) -> Iterator[Found]:
    iterative = [arm for arm in subject.own if arm.iterative]
    for weak in (arm for arm in subject.own if arm.family):
        yield from _steps(subject, weak, iterative)
    for weak in iterative:
        yield from _epsilon(subject, weak, iterative)
        yield from _restarts(weak)
    yield from _unbounded(iterative)


def _steps(subject: Subject, weak: Arm, iterative: list[Arm]) -> Iterator[Found]:
    """The strongest attack of the same family and budget with more steps is weaker."""
    place = weak.family, weak.epsilon, weak.pixels
    strong = strongest(
        arm for arm in iterative if (arm.family, arm.epsilon, arm.pixels) == place and arm.steps > weak.steps
    )
    if strong is None or strong.broken:
        return
    gain = difference(subject.results, strong, weak)
    if gain.positive:
        what = f"{strong.name} ({strong.steps} steps) is weaker than {weak.name}: {gain.text}"
        yield ("iterations weaker than one step" if weak.steps == 1 else "more steps do not help"), what


def _epsilon(subject: Subject, weak: Arm, iterative: list[Arm]) -> Iterator[Found]:
    """The strongest attack of the same family with a much larger epsilon leaves as much."""
    if weak.broken:
        return

    def is_larger(arm: Arm) -> bool:
        same = arm.setting.attack == weak.setting.attack
        related = (arm.family, arm.pixels) == (weak.family, weak.pixels)
        return related and arm.epsilon >= (LARGER if same else MUCH_LARGER) * weak.epsilon

    for epsilon in sorted({arm.epsilon for arm in iterative if is_larger(arm)}):
        strong = strongest(arm for arm in iterative if is_larger(arm) and arm.epsilon == epsilon)
        assert strong is not None
        fall = difference(subject.results, weak, strong)
        if not strong.broken and not fall.positive:
            yield "larger epsilon does not hurt", f"from {weak.name} to {strong.name}: {fall.text}"


def _restarts(arm: Arm) -> Iterator[Found]:
    seeds = [100.0 * float(np.nanmean(each)) for each in arm.per_seed]
    if len(seeds) < 2:
        return
    if max(seeds) - min(seeds) > SEEDS:
        yield "restarts change the result", f"{arm.name}: mAP {min(seeds):.1f} to {max(seeds):.1f}"
    lowest = 100.0 * float(np.nanmean(np.min(arm.per_seed, axis=0)))
    if arm.mean_ap > BROKEN and arm.mean_ap - lowest > MORE_RESTARTS:
        what = f"{arm.name}: one of {len(seeds)} seeds leaves mAP {arm.mean_ap:.1f}, the lowest per query {lowest:.1f}"
        yield "more restarts", what


def _unbounded(iterative: list[Arm]) -> Iterator[Found]:
    if not any(arm.epsilon >= UNBOUNDED for arm in iterative):
        yield "unbounded attack not run", f"no iterative white-box attack with ε of at least {UNBOUNDED} was run"
        return
    best = min(iterative, key=lambda arm: arm.rank1)
    if best.rank1 > UNBOUNDED_RANK1:
        yield "unbounded attack fails", f"{best.name} leaves Rank-1 {best.rank1:.1f}"
