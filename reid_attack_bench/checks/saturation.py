"""Check of saturated embeddings."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from reid_attack_bench.adversary.adaptive import adapt
from reid_attack_bench.checks.subject import Observation, Subject, fault, ok, same_draw
from reid_attack_bench.contracts.features import Packed

FLAT = 0.01
"""Largest change of a value of an embedding within 8/255, to first order and relative to its spread over images, that
counts as flat. Of undefended networks it is above 1, of adversarially trained ones above 0.1."""

SATURATED = 0.5
"""Share of flat values from which there is a fault."""

_RADIUS = 8 / 255
_VALUES = 16  # values of the embedding that are looked at, one backward pass each


def saturation(subject: Subject) -> Iterator[Observation]:
    """Check that gradients reach the images from most values of an embedding.

    The ends of a sigmoid are flat: the gradient is right, and next to nothing of it is left for an attack to follow,
    though the values flip further away. Zeros are left out, because those of a ReLU are flat and no sign of it.
    """
    victim, images = subject.victim, subject.few.clone().requires_grad_(True)
    if subject.purifies:  # what an attack that knows the defence follows
        victim = adapt(victim, 1, randomised=False)
    if not victim.differentiable:
        return
    with torch.enable_grad(), same_draw(images.device):
        embeddings = victim.embed(images)
        if not embeddings.requires_grad:
            return  # reported by the gradient check
        spread = subject.embeddings.float().std(dim=0)
        smooth = _columns(subject).to(spread.device)
        varied = ((spread > 1e-6 * spread[smooth].max()) & smooth).nonzero().flatten()
        chosen = varied[torch.linspace(0, len(varied) - 1, _VALUES).round().long().unique()] if len(varied) else varied
        flat = []
        for value in chosen.tolist():
            (gradient,) = torch.autograd.grad(embeddings[:, value].sum(), images, retain_graph=True, allow_unused=True)
            if gradient is None:
                return
            reach = gradient.abs().flatten(1).sum(dim=1) * _RADIUS
            flat.append((reach < FLAT * spread[value])[embeddings[:, value] != 0])
    found = torch.cat(flat).float() if flat else torch.empty(0)
    share = float(found.mean()) if len(found) else 0.0
    seen = f"{100 * share:.0f} % of the values of embeddings move by less than {100 * FLAT:.0f} % of their spread over "
    seen += "images within 8/255, by their gradient"
    if share < SATURATED:
        yield ok(seen)
    else:
        yield fault(
            f"{seen}: they are saturated, or rounded",
            "return what enters the last sigmoid, softmax or sign; or put what makes it flat into purify",
        )


def _columns(subject: Subject) -> torch.Tensor:
    """Bool D: values of an embedding that are floating point numbers, and no truth values such as visibility."""
    if isinstance(subject.victim, Packed):
        return subject.victim.layout.floating()
    return torch.ones(subject.embeddings.shape[1], dtype=torch.bool)
