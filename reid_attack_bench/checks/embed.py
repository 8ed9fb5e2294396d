"""Embeddings of a victim, checked for shape, type and values."""

from __future__ import annotations

from collections.abc import Callable

import torch

from reid_attack_bench.contracts import Victim
from reid_attack_bench.errors import VictimError


def embed(
    victim: Victim, images: torch.Tensor, name: str, called: Callable[[int], str] = "image {}".format
) -> torch.Tensor:
    """`victim.embed`, checked: N×D, floating point, finite.

    Args:
        name: of the victim, for errors.
        called: position in the batch → name of the image, for errors.
    """
    embeddings = victim.embed(images)
    if not isinstance(embeddings, torch.Tensor) or embeddings.ndim != 2 or len(embeddings) != len(images):
        got = tuple(embeddings.shape) if isinstance(embeddings, torch.Tensor) else type(embeddings).__name__
        raise VictimError(f"victim {name}: embed returned {got} for {len(images)} images, expected {len(images)}×D")
    if not embeddings.is_floating_point():
        raise VictimError(f"victim {name}: embed returned {embeddings.dtype}, expected a floating-point tensor")
    bad = ~torch.isfinite(embeddings).all(dim=1)
    if bad.any():
        raise VictimError(f"victim {name}: embed returned NaN or infinity for {called(int(bad.nonzero()[0]))}")
    return embeddings
