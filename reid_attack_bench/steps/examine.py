"""Check a victim against its contract before it is used."""

from __future__ import annotations

import torch

from reid_attack_bench.adversary.result_list import list_suspicion
from reid_attack_bench.checks.embed import embed
from reid_attack_bench.contracts import Victim, bound
from reid_attack_bench.errors import VictimError
from reid_attack_bench.steps.step import Facts


def examine(victim: Victim, device: torch.device) -> Facts:
    """Check a victim against its contract on two random images.

    Returns:
        "found_randomised": two passes differ. "detector": "suspicion" if it is differentiable, "rejects" if not,
        "list" if it judges result lists and no images, empty without a detector. "zero_gradient": share of the input
        values whose gradient is zero.

    Raises:
        VictimError: wrong shape or type, not finite, or no gradient though it declares to be differentiable.
    """
    victim, name = bound(victim), victim.name or type(victim).__name__
    if victim.distance not in ("euclidean", "cosine"):
        raise VictimError(f"victim {name}: distance must be euclidean or cosine, not {victim.distance!r}")
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, *victim.input_size, generator=generator).to(device).requires_grad_(True)
    embeddings = embed(victim, images, name)
    with torch.no_grad():
        again = embed(victim, images, name)
    found: Facts = {"found_randomised": bool((again - embeddings).abs().max() > 1e-3 * embeddings.abs().max())}
    if victim.own_comparison:
        victim.compare(again, again)  # shape and values
    suspicion = victim.suspicion(images)
    climbable = suspicion is not None and suspicion.requires_grad
    found["detector"] = "suspicion" if climbable else "" if victim.rejects(images.detach()) is None else "rejects"
    if victim.list_length:
        list_suspicion(victim, embeddings, embeddings)
        found["detector"] = found["detector"] or "list"
    if not victim.differentiable:
        return found
    if not embeddings.requires_grad:
        raise VictimError(
            f"victim {name}: its embeddings carry no gradient (a detach, no_grad or numpy on the way?); make it "
            "differentiable, or declare differentiable = False to use it only as a target"
        )
    # along a random direction: the length of a normalised embedding never changes
    direction = torch.randn(embeddings.shape, generator=generator).to(embeddings)
    (gradient,) = torch.autograd.grad((embeddings * direction).sum(), images, allow_unused=True)
    if gradient is None or not torch.isfinite(gradient).all():
        what = "no gradient reaches the images" if gradient is None else "the gradient is NaN or infinite"
        raise VictimError(f"victim {name}: {what}; repair embed, or declare differentiable = False")
    if victim.own_comparison:
        _examine_comparison(victim, name, images)
    logits = victim.logits(images)
    if logits is not None and (logits.ndim != 2 or len(logits) != 2):
        raise VictimError(f"victim {name}: logits returned shape {tuple(logits.shape)} for 2 images, expected 2×K")
    return {**found, "zero_gradient": float((gradient == 0).float().mean())}


def _examine_comparison(victim: Victim, name: str, images: torch.Tensor) -> None:
    """Raise VictimError if distances of its own carry no gradient to the images, though they are declared to."""
    if not victim.differentiable_comparison:
        return
    embeddings = victim.embed(images)
    distances = victim.compare(embeddings, embeddings.detach().flip(0))
    found = torch.autograd.grad(distances.sum(), images, allow_unused=True)[0] if distances.requires_grad else None
    if found is None or not torch.isfinite(found).all():
        raise VictimError(
            f"victim {name}: the gradient of compare is {'missing' if found is None else 'NaN or infinite'}; make it "
            "differentiable (no detach, no NumPy, no square root at 0), or declare differentiable_comparison = False"
        )
