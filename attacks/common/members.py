"""Objectives on several sources at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reid_attack_bench.contracts import Ensemble, Victim


def over_members(
    build: Callable[[Victim], Callable[[Tensor], Tensor]],
    source: Victim,
    *,
    floor: float = 1e-12,
    start: list[Tensor] | None = None,
) -> Callable[[Tensor], Tensor]:
    """Objective of `build` on `source`; on an ensemble, the mean over its members of their objectives.

    Each is divided, image by image, by the absolute value that it has at the first call, so that no member dominates by
    the scale of its values.

    Args:
        build: source → objective: images N×3×H×W → N values.
        floor: a start value below it counts as `floor`. Set it to a value of ordinary size for an objective that may
            start at 0.
        start: for an objective that is built again in every step: an empty list that is given each time. It keeps the
            values of the first call.
    """
    if not isinstance(source, Ensemble):
        return build(source)
    objectives = [build(member) for member in source.members]
    scales = [] if start is None else start

    def objective(images: Tensor) -> Tensor:
        values = [each(images) for each in objectives]
        if not scales:
            scales.extend(value.detach().abs().clamp_min(floor) for value in values)
        return torch.stack([value / scale for value, scale in zip(values, scales, strict=True)]).mean(dim=0)

    return objective
