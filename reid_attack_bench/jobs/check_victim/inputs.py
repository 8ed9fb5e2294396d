"""Checks of ranking, distance and expected input."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reid_attack_bench.contracts import Distance
from reid_attack_bench.jobs.check_victim.other_inputs import INPUTS, SWAPPED, UNDONE
from reid_attack_bench.jobs.check_victim.subject import Said, Subject, fault, note, ok

BETTER = 5.0
"""Points of mAP by which another input must rank better, beyond chance, for a note."""

MUCH_BETTER = 10.0
"""The same for a fault: on data unlike its training data, a wrong input may rank slightly better by chance."""

ENOUGH = 30
"""Smallest number of queries for a fault; with fewer it is a note."""

BETTER_DISTANCE = 2.0
"""Points of mAP by which the other distance must rank better for a note."""


def ranking(subject: Subject) -> Iterator[Said]:
    if subject.collapsed:
        yield fault("all images have the same embedding", "are its weights loaded? Does it take images in [0, 1]?")
        return
    base, chance = subject.base, chance_level(subject)
    people = len(np.unique(subject.identities))
    seen = f"Rank-1 {base.rank1:.1f} %, mAP {base.mean:.1f} % on {len(subject.images)} clean images of {people} people"
    if base.rank1 < 3.0 * chance:
        yield note(
            f"{seen}; chance is Rank-1 {chance:.1f} %",
            "attacks on a model that finds nobody mean nothing: are its weights loaded?",
        )
    else:
        yield ok(seen)


def chance_level(subject: Subject) -> float:
    """Rank-1 in % of a random order."""
    same = subject.identities[:, None] == subject.identities
    junk = same & (subject.cameras[:, None] == subject.cameras)
    correct = (same & ~junk).sum(axis=1)
    valid = correct > 0
    return 100.0 * float((correct[valid] / (~junk).sum(axis=1)[valid]).mean())


def distance(subject: Subject) -> Iterator[Said]:
    if subject.collapsed:
        return
    other: Distance = "cosine" if subject.declared == "euclidean" else "euclidean"
    score = subject.score(subject.embeddings, other)
    seen = f"mAP {subject.base.mean:.1f} % by the declared {subject.declared} distance, {score.mean:.1f} % by {other}"
    if score.better_than(subject.base, BETTER_DISTANCE):
        yield note(seen, f'declare distance = "{other}", unless the model is meant to use this one')
    else:
        yield ok(seen)


def other_input(name: str, subject: Subject) -> Iterator[Said]:
    """Compare with other forms of input: one that ranks clearly better tells what the model expects."""
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
    # swapped red and blue may rank better by chance if a camera has a colour cast, more contrast under a defence that
    # adds noise or rounds
    defended = subject.purifies or subject.victim.randomised
    accident = best == SWAPPED or (defended and best != UNDONE)
    enough = np.isfinite(base.ap).sum() >= ENOUGH and better[best].better_than(base, MUCH_BETTER)
    yield (fault if enough and not accident else note)(seen, INPUTS[best][2])
