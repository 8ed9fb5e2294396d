"""Objectives by name, and the yardstick by which points that climbed different ones are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor

from reid_attack_bench.contracts import Batch, Ensemble, Need, Targets

from ..members import over_members
from .embedding import own_distance
from .identity import fna, misranking, same_identity
from .logits import Objective, dlr, misclassification
from .ranking import RANKS, Ranks, mean_place, ranking, smooth_ap
from .targeted import TargetReference, approach
from .view import Scores, View

Name = Literal[
    "self",
    "ranking",
    "smooth_ap",
    "same_identity",
    "fna",
    "misranking",
    "cross_entropy",
    "dlr",
    "least_likely",
    "cosine",
]

LOGITS: frozenset[Name] = frozenset({"cross_entropy", "dlr", "least_likely", "cosine"})

_BY_IDENTITY: dict[Name, Callable[[View], Scores]] = {
    "same_identity": same_identity,
    "fna": fna,
    "misranking": misranking,
}

_KINDS: dict[Name, Objective] = {"cross_entropy": "untargeted", "least_likely": "least_likely", "cosine": "cosine"}

NEEDS: dict[Name, frozenset[Need]] = {
    **dict.fromkeys(get_args(Name), frozenset[Need]()),
    **dict.fromkeys(LOGITS, frozenset[Need]({"logits"})),
    **dict.fromkeys(("ranking", "smooth_ap"), frozenset[Need]({"gallery"})),
    **dict.fromkeys(_BY_IDENTITY, frozenset[Need]({"gallery", "labels"})),
}
"""What each objective needs besides gradients."""


def objective_for(
    name: Name,
    view: View,
    *,
    ranks: Ranks = RANKS,
    target: TargetReference = "mean",
    start: list[Tensor] | None = None,
) -> Scores:
    """The objective `name` for the batch of `view`; that of impersonation if the batch has targets.

    - Logits, no labels: "cross_entropy" of the class predicted for the clean image; "dlr", the difference of logits
      ratio (Croce and Hein, arXiv 2003.01690); "least_likely" and "cosine", see `misclassification`.
    - Embedding, no labels: "self", the distance to the own clean embedding.
    - Gallery, no labels: "ranking" and "smooth_ap", see `ranking`; "self" for a gallery of fewer than two images.
    - Gallery and labels, an oracle: "same_identity", "fna" and "misranking", see `identity`.

    On an ensemble those on logits and "self" are averaged over its members, see `members.over_members`. The others read
    its joint embedding, in which the members' mean distance ranks the gallery. `start` is that of `over_members`, for
    "self".
    """
    source, batch = view.source, view.batch
    if batch.targets is not None:
        return approach(view, target)
    if name in _KINDS:
        return misclassification(source, batch.images, _KINDS[name])
    if name == "dlr":
        return dlr(source, batch.images)
    if name in _BY_IDENTITY:
        return _BY_IDENTITY[name](view)
    if name in ("ranking", "smooth_ap") and len(view.gallery) > 1:
        return ranking(view, ranks) if name == "ranking" else smooth_ap(view, ranks)
    if isinstance(source, Ensemble):
        return over_members(lambda member: own_distance(View(member, batch)), source, start=start)
    return own_distance(view)


def yardstick(view: View, *, ranks: Ranks = RANKS, target: TargetReference = "mean") -> Scores:
    """Success of images, whatever they climbed, without labels: N values.

    With targets, their objective. With a gallery, minus the average precision of its images nearest to the clean query,
    as if those were the correct matches. Otherwise the distance to the own clean embedding.
    """
    if view.batch.targets is not None:
        return approach(view, target)
    if view.batch.references is not None and len(view.gallery) > 1:
        return mean_place(view, ranks)
    return own_distance(view)


def part_of(batch: Batch, rows: slice) -> Batch:
    """Images `rows` of `batch`, with what is known of them."""
    identities = None if batch.identities is None else batch.identities[rows]
    targets = None if batch.targets is None else Targets(batch.targets.identities[rows], batch.targets.guides)
    return Batch(batch.images[rows], identities, batch.references, targets)
