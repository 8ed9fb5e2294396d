"""Check of a re-ranking: what ranks an evaluation in place of the distance."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from reid_attack_bench.checks.subject import Observation, Subject, fault, note, ok

WORSE = 5.0
"""Loss in mAP points from which there is a note."""


def reranking(subject: Subject) -> Iterator[Observation]:
    """Check shape and values of the re-ranked distances, that they are repeated, and how they rank."""
    if not subject.victim.reranks or subject.collapsed:
        return
    distances, again = reranked(subject), reranked(subject)
    count = len(subject.images)
    if distances is None or again is None:
        yield fault("rerank returns None", "return Q×G distances, or declare reranks = False")
        return
    if distances.shape != (count, count):
        yield fault(
            f"rerank returned {tuple(distances.shape)} for {count} queries and {count} gallery images",
            "return one row for each query and one column for each gallery image, or blocks of rows in order",
        )
        return
    if distances.isnan().any():
        yield fault("rerank returned NaN", "look for divisions by zero: the gallery may be smaller than its neighbours")
        return
    if not torch.allclose(distances, again, rtol=1e-4, atol=1e-5, equal_nan=True):
        yield fault("rerank returns other distances for the same features", "draw no random numbers, keep no state")
        return
    score = subject.score_of(distances)
    seen = f"mAP {score.mean:.1f} % re-ranked, {subject.base.mean:.1f} % as attacks see it"
    if subject.base.better_than(score, WORSE):
        yield note(seen, "is a smaller distance nearer? Are queries the rows?")
    else:
        yield ok(seen)


def reranked(subject: Subject) -> Tensor | None:
    """Distances of all images to all; None without."""
    features = subject.embeddings
    with torch.no_grad():
        found = subject.victim.rerank(features, features)
        return found if found is None or isinstance(found, Tensor) else torch.cat(list(found))
