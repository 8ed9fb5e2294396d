"""Objective of impersonation: a query is to look like another identity."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from reid_attack_bench.errors import BenchError

from .view import Scores, View

TargetReference = Literal["mean", "nearest"]


def approach(view: View, reference: TargetReference = "mean") -> Scores:
    """Minus the mean distance to the guide images of the target identity, or to the nearest of them: N values.

    Raises:
        BenchError: a target identity has no guide image.
    """
    targets = view.batch.targets
    assert targets is not None
    people = torch.from_numpy(targets.guides.identities)
    wanted = targets.identities.cpu()[:, None] == people
    if not wanted.any(dim=1).all():
        missing = int(targets.identities[~wanted.any(dim=1)][0])
        raise BenchError(f"identity {missing} is to be impersonated, but no guide image shows it")
    used = wanted.any(dim=0).nonzero().flatten()
    guides = view.embedded(targets.guides, used.numpy())
    chosen = wanted[:, used].to(view.device)

    def score(images: Tensor) -> Tensor:
        apart = view.distances(images, guides)
        if reference == "nearest":
            return -apart.masked_fill(~chosen, torch.inf).amin(dim=1)
        return -(apart * chosen).sum(dim=1) / chosen.sum(dim=1)

    return score
