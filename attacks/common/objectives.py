"""Objectives that gradient attacks maximise: functions of images N×3×H×W with N values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import Batch, Victim, distances, to_float
from reid_attack_bench.errors import BenchError

References = Literal["self", "same_identity"]

_CHUNK = 64  # reference images per forward pass


def embedding_distance(source: Victim, batch: Batch, references: References) -> Callable[[Tensor], Tensor]:
    """Mean distance from the embedding of each image to its reference embeddings; see `metric` for the references."""
    with torch.no_grad():
        own = source.embed(batch.images)
        others, weights = own, torch.eye(len(own), device=own.device)
        if references == "same_identity":
            others, weights = _with_same_identity(source, batch, own)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return lambda images: (distances(source.embed(images), others, source.distance) * weights).sum(dim=1)


def _with_same_identity(source: Victim, batch: Batch, own: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings of the M references (images of the batch's identities, then the batch itself) and 0/1 weights N×M."""
    assert batch.identities is not None  # both are declared in `needs`
    assert batch.references is not None
    people = torch.from_numpy(batch.references.identities)
    chosen = torch.isin(people, batch.identities.cpu()).nonzero().flatten()
    parts = [
        source.embed(to_float(batch.references.images[rows.numpy()], batch.images.device))
        for rows in chosen.split(_CHUNK)
        if len(rows)
    ]
    same = batch.identities.cpu()[:, None] == people[chosen][None, :]
    alone = torch.diag(~same.any(dim=1))
    return torch.cat([*parts, own]), torch.cat([same, alone], dim=1).to(own)


Objective = Literal["untargeted", "least_likely", "cosine"]


def misclassification(
    source: Victim, clean: Tensor, kind: Objective = "untargeted", *, from_clean: bool = False
) -> Callable[[Tensor], Tensor]:
    """Objective of attacks on the classifier; N values per call.

    Test identities are not classes of the classifier: the class predicted for the clean image stands in for the true
    class, and no label is needed.

    Args:
        source: the white-box model.
        clean: N×3×H×W in [0, 1].
        kind: "untargeted", the cross entropy of the predicted class; "least_likely", the negative cross entropy of the
            class least likely for the clean image (Kurakin et al., arXiv 1607.02533); "cosine", the negative cosine
            similarity to the clean logits. The latter keeps increasing after the class has changed, when cross entropy
            no longer affects the ranking. Its gradient at the clean image is zero: it needs a random start.
        from_clean: the first call is with the clean images, which saves a forward pass.
    """

    known: list[Tensor] = []
    if not from_clean or source.randomised:  # two passes would differ
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
