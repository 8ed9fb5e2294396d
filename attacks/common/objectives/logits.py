"""Objectives on the logits of a classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import Ensemble, Victim
from reid_attack_bench.errors import BenchError

from ..members import over_members

Objective = Literal["untargeted", "least_likely", "cosine"]


def misclassification(
    source: Victim, clean: Tensor, kind: Objective = "untargeted", *, from_clean: bool = False
) -> Callable[[Tensor], Tensor]:
    """Objective of attacks on the classifier; N values per call.

    Test identities are not classes of the classifier: the class predicted for the clean image stands in for the true
    class, and no label is needed.

    Args:
        source: the white-box model. On an ensemble the members' objectives are averaged, each divided by its value at
            the start: cross entropies where that is above 1, and the similarity as 1 − cosine.
        clean: N×3×H×W in [0, 1].
        kind: "untargeted", the cross entropy of the predicted class; "least_likely", the negative cross entropy of the
            class least likely for the clean image (Kurakin et al., arXiv 1607.02533); "cosine", the negative cosine
            similarity to the clean logits. The latter keeps increasing after the class has changed, when cross entropy
            no longer affects the ranking. Its gradient at the clean image is zero: it needs a random start.
        from_clean: the first call is with the clean images, which saves a forward pass.
    """
    if isinstance(source, Ensemble):
        # the cross entropy of a confident member starts at 0, and a negative similarity at −1, whatever it falls to
        shift, floor = (1.0, 1e-3) if kind == "cosine" else (0.0, 1.0)

        def shifted(member: Victim) -> Callable[[Tensor], Tensor]:
            objective = misclassification(member, clean, kind, from_clean=from_clean)
            return lambda images: shift + objective(images)

        return over_members(shifted, source, floor=floor)
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


def dlr(source: Victim, clean: Tensor) -> Callable[[Tensor], Tensor]:
    """Difference of logits ratio (Croce and Hein, ICML 2020, arXiv 2003.01690), N values per call.

    −(z_y − max over i ≠ y of z_i) / (z_1 − z_3), with the class y predicted for the clean image and the logits z_1 ≥
    z_2 ≥ … of an image: unlike cross entropy it does not vanish where the classifier is sure.

    Args:
        source: the white-box model, of at least three classes. On an ensemble the mean over its members.
        clean: N×3×H×W in [0, 1].
    """
    if isinstance(source, Ensemble):
        return over_members(lambda member: dlr(member, clean), source, floor=1.0)
    with torch.no_grad():
        predicted = logits_of(source, clean, 3).argmax(dim=1, keepdim=True)

    def objective(images: Tensor) -> Tensor:
        logits = logits_of(source, images, 3)
        first, second, third = logits.topk(3, dim=1).values.unbind(dim=1)
        own = logits.gather(1, predicted).squeeze(1)
        other = torch.where(logits.argmax(dim=1) == predicted.squeeze(1), second, first)
        return (other - own) / (first - third + 1e-12)

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
