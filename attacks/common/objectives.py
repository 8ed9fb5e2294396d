"""Objectives that gradient attacks climb: images N×3×H×W → N values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import Batch, Victim, distances, to_float
from reid_attack_bench.errors import BenchError

References = Literal["self", "same_identity"]

_GUIDE_BATCH = 64


def embedding_distance(source: Victim, batch: Batch, references: References) -> Callable[[Tensor], Tensor]:
    """Mean distance of each image's embedding to its reference embeddings; N values."""
    with torch.no_grad():
        own = source.embed(batch.images)
        guides, weights = own, torch.eye(len(own), device=own.device)
        if references == "same_identity":
            guides, weights = _with_same_identity(source, batch, own)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return lambda images: (distances(source.embed(images), guides, source.distance) * weights).sum(dim=1)


def _with_same_identity(source: Victim, batch: Batch, own: Tensor) -> tuple[Tensor, Tensor]:
    """Reference embeddings (guides of the batch's identities, then the images' own) and N×M weights of 0 and 1."""
    assert batch.identities is not None  # the needs declare both
    assert batch.references is not None
    everyone = torch.from_numpy(batch.references.identities)
    chosen = torch.isin(everyone, batch.identities.cpu()).nonzero().flatten()
    parts = [
        source.embed(to_float(batch.references.images[rows.numpy()], batch.images.device))
        for rows in chosen.split(_GUIDE_BATCH)
        if len(rows)
    ]
    same = batch.identities.cpu()[:, None] == everyone[chosen][None, :]
    alone = torch.diag(~same.any(dim=1))
    return torch.cat([*parts, own]), torch.cat([same, alone], dim=1).to(own)


Objective = Literal["untargeted", "least_likely", "cosine"]


def misclassification(
    source: Victim, clean: Tensor, kind: Objective = "untargeted", *, from_clean: bool = False
) -> Callable[[Tensor], Tensor]:
    """What an attack on the classifier climbs: images N×3×H×W → N values.

    Test identities are not among the classifier's, so the class that it predicts for the clean image stands
    for the true one and no label is needed.

    Args:
        kind: "untargeted", cross entropy away from the predicted class; "least_likely", minus the cross entropy
            towards the class least likely for the clean image (Kurakin et al., arXiv 1607.02533);
            "cosine", away from the direction of the clean logits: cross entropy asks no more once the class has
            changed, which may leave a query's neighbours as they were; this goes on. Its gradient at the
            clean image is zero, so it needs a random start.
        from_clean: the first images that it will be asked about are the clean ones: what the source says of them
            then costs no pass of its own.
    """

    known: list[Tensor] = []
    if not from_clean or source.randomised:  # of which two passes differ
        with torch.no_grad():
            known.append(logits_of(source, clean))

    def objective(images: Tensor) -> Tensor:
        logits = logits_of(source, images)
        if not known:
            known.append(logits.detach())
        if kind == "untargeted":
            return functional.cross_entropy(logits, known[0].argmax(dim=1), reduction="none")
        if kind == "least_likely":
            return -functional.cross_entropy(logits, known[0].argmin(dim=1), reduction="none")
        return -functional.cosine_similarity(logits, known[0])

    return objective


def logits_of(source: Victim, images: Tensor, classes: int = 1) -> Tensor:
    """N×K logits of `source` for N×3×H×W images, K at least `classes`; see `require_logits`."""
    return require_logits(source.logits(images), source, classes)


def require_logits(logits: Tensor | None, source: Victim, classes: int = 1, advice: str = "") -> Tensor:
    """`logits` of `source`, N×K.

    Raises:
        BenchError: they are None or have fewer than `classes` classes; the message ends with `advice`.
    """
    if logits is not None and logits.shape[1] >= classes:
        return logits
    what = "no classifier" if logits is None else f"a classifier of {logits.shape[1]} class"
    raise BenchError(
        f"{source.name or type(source).__name__} has {what}, but the attack needs its logits{advice and f': {advice}'}"
    )
