"""Ensembles: several sources that an attack is crafted on at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_attack_bench.contracts.victim import Victim


class Ensemble(Victim):
    """Several victims as one source.

    Its embedding is the members' L2-normalised embeddings side by side, divided by √K for K members. Its distance is
    "cosine" and equals the mean of the members' cosine distances, so no member dominates by the size of its embeddings,
    and the embedding of an image does not depend on the batch. A member that ranks by Euclidean distance therefore
    counts by the directions of its embeddings only.

    It has no logits, since the members' classes may differ: an attack with `Attack.takes_members` reads those of each
    of `members`. Its detector score is the largest of the members'. It is differentiable, adapted and classifies if all
    members do, and randomised, or uses cameras, if one is or does.

    Args:
        members: at least one victim; they are not changed.
    """

    distance = "cosine"

    def __init__(self, members: Sequence[Victim]) -> None:
        super().__init__()
        self._parts = nn.ModuleList(members)
        self.name = "+".join(member.name or type(member).__name__ for member in members)
        self.input_size = members[0].input_size
        self.randomised = any(member.randomised for member in members)
        self.differentiable = all(member.differentiable for member in members)
        self.classifies = all(member.classifies for member in members)
        self.uses_cameras = any(member.uses_cameras for member in members)
        self.adapted = all(member.adapted for member in members)
        self.max_batch = min((member.max_batch for member in members if member.max_batch is not None), default=None)

    @property
    def members(self) -> tuple[Victim, ...]:
        return tuple(self._parts)  # type: ignore[arg-type]  # nn.ModuleList is untyped

    def embed(self, images: Tensor) -> Tensor:
        parts = [functional.normalize(member.embed(images), dim=1) for member in self.members]
        return torch.cat(parts, dim=1) / len(parts) ** 0.5

    def suspicion(self, images: Tensor) -> Tensor | None:
        scores = [score for member in self.members if (score := member.suspicion(images)) is not None]
        return torch.stack(scores).amax(dim=0) if scores else None

    def rejects(self, images: Tensor) -> Tensor | None:
        refused = [each for member in self.members if (each := member.rejects(images)) is not None]
        return torch.stack(refused).any(dim=0) if refused else None


def each_member(source: Victim, wrap: Callable[[Victim], Victim]) -> Victim:
    """`wrap(source)`; of an ensemble, the ensemble of its wrapped members."""
    return Ensemble([wrap(member) for member in source.members]) if isinstance(source, Ensemble) else wrap(source)
