"""Checks of ranking, distance and expected input."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reid_attack_bench.checks.other_inputs import INPUTS, SWAPPED, UNDONE
from reid_attack_bench.checks.subject import Observation, Subject, fault, note, ok
from reid_attack_bench.contracts import Distance

BETTER = 5.0
"""Gain in mAP points, beyond chance, from which another form of input is reported as a note."""

MUCH_BETTER = 10.0
"""Gain for a fault; larger, because a wrong input may rank slightly better by chance on unfamiliar data."""

ENOUGH = 30
"""Smallest number of queries for a fault; below it is a note."""

BETTER_DISTANCE = 2.0
"""Gain in mAP points from which the other distance is reported as a note."""


def ranking(subject: Subject) -> Iterator[Observation]:
    if subject.collapsed:
        yield fault("all images have the same embedding", "are its weights loaded? Does it take images in [0, 1]?")
        return
    base, chance = subject.base, chance_level(subject)
    identities = len(np.unique(subject.identities))
    seen = f"Rank-1 {base.rank1:.1f} %, mAP {base.mean:.1f} %"
    seen += f" on {len(subject.images)} clean images of {identities} identities"
    if base.rank1 < 3.0 * chance:
        yield note(
            f"{seen}; chance is Rank-1 {chance:.1f} %",
            "attacks on a model that does not rank better than chance are meaningless: are its weights loaded?",
        )
    else:
        yield ok(seen)


def chance_level(subject: Subject) -> float:
    """Rank-1 in % of a random ranking."""
    same = subject.identities[:, None] == subject.identities
    junk = same & (subject.cameras[:, None] == subject.cameras)
    correct = (same & ~junk).sum(axis=1)
    valid = correct > 0
    return 100.0 * float((correct[valid] / (~junk).sum(axis=1)[valid]).mean())


def distance(subject: Subject) -> Iterator[Observation]:
    if subject.collapsed or subject.victim.own_comparison:
        return
    other: Distance = "cosine" if subject.declared == "euclidean" else "euclidean"
    score = subject.score(subject.embeddings, other)
    seen = f"mAP {subject.base.mean:.1f} % by the declared {subject.declared} distance, {score.mean:.1f} % by {other}"
    if score.better_than(subject.base, BETTER_DISTANCE):
        yield note(seen, f'declare distance = "{other}", unless the model is meant to use this one')
    else:
        yield ok(seen)


def other_input(name: str, subject: Subject) -> Iterator[Observation]:
    """Compare other forms of input; the model probably expects one that ranks clearly better."""
    if subject.collapsed:
        return
    base = subject.base
    better = {what: score for what, score in subject.other_inputs.items() if score.better_than(base, BETTER)}
    best = max(better, key=lambda what: better[what].mean, default="")
    tried = {what: score for what, score in subject.other_inputs.items() if INPUTS[what][0] == name}
    others = ", ".join(f"{score.mean:.1f} % {what}" for what, score in tried.items()) or "it accepts no other"
    seen = f"mAP {base.mean:.1f} % on images in [0, 1], {others}"
    if best not in tried:
        yield ok(seen)
        return
    # swapped red and blue may rank better by chance if a camera has a colour cast, more contrast with a defence that
    # adds noise or rounds
    defended = subject.purifies or subject.victim.randomised
    accident = best == SWAPPED or (defended and best != UNDONE)
    enough = np.isfinite(base.ap).sum() >= ENOUGH and better[best].better_than(base, MUCH_BETTER)
    yield (fault if enough and not accident else note)(seen, INPUTS[best][2])
