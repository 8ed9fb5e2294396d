"""Detectors that judge the result list of a query, see `Victim.suspicion_in_list`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reid_attack_bench.contracts import Victim, WrappedVictim
from reid_attack_bench.errors import VictimError


def list_suspicion(victim: Victim, queries: Tensor, gallery: Tensor) -> Tensor:
    """Scores of N queries by a victim with `list_length`, positive for refused ones; differentiable in `queries`.

    Args:
        queries: N×D embeddings.
        gallery: G×D embeddings.

    Raises:
        VictimError: the scores have another shape.
    """
    apart = victim.compare(queries, gallery)
    near = apart.topk(min(victim.list_length, len(gallery)), dim=1, largest=False)
    scores = victim.suspicion_in_list(queries, gallery[near.indices], near.values)
    if not isinstance(scores, Tensor) or scores.shape != queries.shape[:1]:
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise VictimError(
            f"victim {victim.name or type(victim).__name__}: suspicion_in_list must return {len(queries)} values for "
            f"as many queries, not {got}"
        )
    return scores


class ListSeen(WrappedVictim):
    """A victim whose `suspicion` includes that of its result list, for an adaptive attack that sees the gallery.

    Args:
        victim: a model with `list_length`.
        gallery: returns the G×D embeddings of its gallery; called when they are first needed.
    """

    def __init__(self, victim: Victim, gallery: Callable[[], Tensor]) -> None:
        super().__init__(victim)
        self._gallery = gallery

    def suspicion(self, images: Tensor) -> Tensor:
        in_list = list_suspicion(self.victim, self.victim.embed(images), self._gallery())
        alone = self.victim.suspicion(images)
        return in_list if alone is None else torch.maximum(in_list, alone)
