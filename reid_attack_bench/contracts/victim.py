"""Victims: ReID models as the bench sees them, recipes that train one, and defences that wrap one."""

from __future__ import annotations

import hashlib
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from reid_attack_bench.contracts.distance import Distance
from reid_attack_bench.contracts.training import FitContext, State, TrainingData


class Victim(nn.Module):
    """A ReID model as the bench sees it: images in, embeddings out.

    Subclass it, set the class attributes, implement `embed`. The harness puts it in eval mode,
    freezes its parameters and moves it to the device of the run.

    Attributes:
        name: how tables call it; the class name where empty.
        distance: what ranks its embeddings, "euclidean" or "cosine".
        input_size: (height, width) that the model resizes to, in pixels.
        randomised: True where two calls on one image may differ.
        differentiable: False where gradients do not reach the images; such a victim is only a target.
        defence: what defends it, in a few words; empty for an undefended model.
        citation: where it was published (paper, arXiv number or URL).
        trained_on: name of the data set it was trained on, where known.
        adapted: True where it stands for a victim whose defence the attack knows (see `adaptive`).
        at_once: how many images it is best given at a time, where memory is short (see `passes`); None for any number.
        version: of a registered class: raise it when the same weights give other embeddings. None, or one that is only
            inherited, stands for a digest of the source file, so that every edit makes new results.
    """

    name: str = ""
    distance: Distance = "euclidean"
    input_size: tuple[int, int] = (256, 128)
    randomised: bool = False
    differentiable: bool = True
    defence: str = ""
    citation: str = ""
    trained_on: str = ""
    adapted: bool = False
    at_once: int | None = None
    version: ClassVar[int | None] = None

    def embed(self, images: Tensor) -> Tensor:
        """N×3×H×W float32 RGB in [0, 1] → N×D embeddings, differentiable in `images`."""
        raise NotImplementedError

    def logits(self, images: Tensor) -> Tensor | None:
        """N×3×H×W in [0, 1] → N×K scores over the victim's own training identities, or None."""
        return None

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embeddings and logits together; override where one pass gives both."""
        return self.embed(images), self.logits(images)

    def purify(self, images: Tensor) -> Tensor:
        """The input transformation that defends the model, N×3×H×W in [0, 1] → the same; none by default.

        A defence that has one puts it here, whatever it is made of, and calls `self.purify` in `embed` and `logits`:
        an adaptive attack then goes through it with the gradient of the identity (see `adaptive`).
        """
        return images

    def suspicion(self, images: Tensor) -> Tensor | None:
        """N values, positive for the queries that a detector refuses; None for a model without one.

        Differentiable in `images`, if it can be: an adaptive attack climbs down it where an image is refused.
        """
        return None

    def rejects(self, images: Tensor) -> Tensor | None:
        """bool N: the queries that a detector refuses; None for a model without one.

        A refused clean query is a miss. A refused adversarial query counts as its clean self does: the attack has
        gained nothing, and a detector that refuses everything gains nothing either. Override it only for a detector
        that has no `suspicion`.
        """
        suspicion = self.suspicion(images)
        return None if suspicion is None else suspicion > 0

    def forward(self, images: Tensor) -> Tensor:
        return self.embed(images)


class WrappedVictim(Victim):
    """A victim made of another one: it says the same of itself and does the same, but for what a subclass changes.

    Args:
        victim: the model; it is not changed.
        defence: what is added to its defence, in a few words.
    """

    def __init__(self, victim: Victim, defence: str = "") -> None:
        super().__init__()
        self.victim = victim
        self.name, self.distance, self.input_size = victim.name, victim.distance, victim.input_size
        self.randomised, self.differentiable = victim.randomised, victim.differentiable
        self.trained_on, self.adapted = victim.trained_on, victim.adapted
        self.defence = " + ".join(part for part in (victim.defence, defence) if part)

    def embed(self, images: Tensor) -> Tensor:
        return self.victim.embed(images)

    def logits(self, images: Tensor) -> Tensor | None:
        return self.victim.logits(images)

    def suspicion(self, images: Tensor) -> Tensor | None:
        return self.victim.suspicion(images)

    def rejects(self, images: Tensor) -> Tensor | None:
        refused = super().rejects(images)
        return self.victim.rejects(images) if refused is None else refused


@runtime_checkable
class VictimRecipe(Protocol):
    """A victim that the bench trains: a frozen dataclass of settings.

    `fit` trains on one data set and returns the weights, `load` turns weights into a victim. `version` as in Victim:
    raise it when training gives other weights. Its random numbers stay the same.
    """

    def fit(self, data: TrainingData, context: FitContext) -> State: ...

    def load(self, state: State) -> Victim: ...


@runtime_checkable
class Defence(Protocol):
    """What makes a defended victim of another one: a frozen dataclass of settings.

    `defend` must leave the victim that it is given as it was. A defence that learns also has

        fit(victim: Victim, data: TrainingData, context: FitContext) -> State

    with the data that the victim was trained on, and receives that state in `defend`. One through which no gradient
    passes says `differentiable = False`; one whose victim has its transformation in `purify` says `purifies = True`.
    `version` as in Victim.
    """

    def defend(self, victim: Victim, state: State | None = None) -> Victim: ...


def weights_digest(victim: Victim) -> str:
    """sha256 over the names, shapes and bytes of a victim's parameters and buffers, as 32 hexadecimal digits."""
    total = hashlib.sha256()
    for name, value in sorted(victim.state_dict().items()):
        tensor = value.detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return total.hexdigest()[:32]
