"""Check of a comparison of a victim's own."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from reid_attack_bench.checks.subject import FEW, Observation, Subject, fault, note, ok
from reid_attack_bench.metrics.ranking import compared_rows


def comparison(subject: Subject) -> Iterator[Observation]:
    """Check that a distance depends on its two images alone, and that an image is near to itself.

    Shape and values are checked wherever it is called, and its gradient by the check of that name.
    """
    victim, features = subject.victim, subject.embeddings
    if not victim.own_comparison or subject.collapsed:
        return
    with torch.no_grad():
        whole = torch.cat(list(compared_rows(victim.compare, features, features)))
        part = victim.compare(features[1:FEW], features[2 : FEW + 3])
    wanted = whole[1:FEW, 2 : FEW + 3]
    moved = float((part - wanted).abs().max() / whole.std().clamp_min(1e-12))
    if moved > 0.01:
        yield fault(
            f"distances move by {100 * moved:.2g} % of their spread when fewer images are compared",
            "compare each pair by itself: galleries are ranked in blocks, and attacks see batches",
        )
        return
    nearest = float((whole.argmin(dim=1) == torch.arange(len(whole), device=whole.device)).float().mean())
    seen = f"{100 * nearest:.0f} % of the images are nearest to themselves"
    if not victim.differentiable_comparison:
        seen += "; declared without gradients: attacks that climb distances are not applicable"
    if nearest < 0.9:
        yield note(seen, "is a smaller distance nearer?")
    else:
        yield ok(seen)
