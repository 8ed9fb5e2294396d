"""What the parts hand to each other: victims, attacks, threat models and data.

Every image between parts is float32 RGB, N×3×H×W, in [0, 1]. Stored images are uint8 RGB, N×H×W×3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_attack_bench.errors import BenchError

Distance = Literal["euclidean", "cosine"]
Need = Literal["gradients", "logits", "labels", "gallery"]
State = dict[str, Tensor]
"""What a fit leaves behind: named tensors, stored as safetensors."""

ADDED_LATER = {"added_later": True}
"""Metadata of a setting that a plug-in gained with a default that changes nothing: at its default it is no part of the
key of a step, so that what was stored before is found."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def to_float(images: np.ndarray | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """uint8 RGB N×H×W×3 → float32 RGB N×3×H×W in [0, 1] on `device`."""
    # copied: a slice of a read-only memory map is not for torch to write to
    tensor = torch.from_numpy(np.array(images)) if isinstance(images, np.ndarray) else images
    return tensor.to(device).permute(0, 3, 1, 2).contiguous().float().div(255.0)


def to_uint8(images: Tensor) -> np.ndarray:
    """float RGB N×3×H×W in [0, 1] → uint8 RGB N×H×W×3, rounded to the nearest of 256 levels."""
    levels = images.detach().mul(255.0).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def preprocess(
    images: Tensor,
    size: tuple[int, int],
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Tensor:
    """Resize (bilinear, antialiased) to `size` = (height, width) and normalise; differentiable.

    For use inside a victim: nothing else in the project resizes or normalises what a model sees.
    """
    if images.shape[-2:] != torch.Size(size):
        images = functional.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
    # non-blocking: a GPU is not waited for in every pass
    shift, scale = (
        torch.tensor(values, dtype=images.dtype).to(images.device, non_blocking=True) for values in (mean, std)
    )
    return (images - shift.view(1, -1, 1, 1)) / scale.view(1, -1, 1, 1)


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


@dataclass(frozen=True)
class TrainingData:
    """The training split of one data set.

    Attributes:
        name: data set name.
        images: uint8 RGB, N×H×W×3 (usually a read-only memory map).
        identities: int64 N, contiguous labels 0 … K−1.
        cameras: int64 N.
    """

    name: str
    images: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray

    @property
    def identity_count(self) -> int:
        return int(self.identities.max()) + 1

    def batch(self, indices: np.ndarray | list[int], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Images (float32 N×3×H×W in [0, 1]) and identities (int64 N) at `indices`."""
        chosen = np.asarray(indices)
        return to_float(self.images[chosen], device), torch.from_numpy(self.identities[chosen]).to(device)


class Checkpoint(Protocol):
    """Where a long fit may keep what it has so far; it ends when the fit does."""

    def load(self) -> State | None:
        """What an interrupted fit of the same step saved last, or None."""
        ...

    def save(self, state: State) -> None: ...


@dataclass(frozen=True)
class FitContext:
    """What a fit may use beside its data.

    Attributes:
        device: where to compute.
        generator: seeded CPU generator; the global torch, numpy and random states are seeded too.
        progress: call it as progress(done, total, note) after each unit of work.
        checkpoint: where to go on after an interruption, or None. A fit that uses it must give the same result as one
            that was never interrupted.
    """

    device: torch.device
    generator: torch.Generator
    progress: Callable[[int, int, str], None] = lambda done, total, note: None
    checkpoint: Checkpoint | None = None


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


@dataclass(frozen=True)
class ThreatModel:
    """What an adversary may do.

    Attributes:
        epsilon: L-inf budget per colour value, a whole number of 8-bit steps (units of 1/255).
        pixels: at most this many pixel positions may change (counted on H×W); None for all.
        perturbs: which images are attacked; the field's default is the query.
        access: "transfer" crafts on a source and evaluates on every target; "white-box" evaluates only
            where source and target are the same; "query" lets the attack see that model's outputs
            but no gradients.
    """

    epsilon: int = 8
    pixels: int | None = None
    perturbs: Literal["query", "gallery", "both"] = "query"
    access: Literal["transfer", "white-box", "query"] = "transfer"

    def __post_init__(self) -> None:
        if isinstance(self.epsilon, bool) or self.epsilon != int(self.epsilon) or not 0 <= self.epsilon <= 255:
            raise BenchError(
                f"epsilon must be a whole number of 8-bit steps from 0 to 255, not {self.epsilon!r}: images are stored "
                "in 8 bits, so write 8 for 8/255"
            )
        object.__setattr__(self, "epsilon", int(self.epsilon))
        if self.pixels is not None and (self.pixels != int(self.pixels) or self.pixels < 1):
            raise BenchError(f"pixels must be a positive whole number or null for all, not {self.pixels!r}")
        for field, allowed in (
            ("perturbs", ("query", "gallery", "both")),
            ("access", ("transfer", "white-box", "query")),
        ):
            if getattr(self, field) not in allowed:
                raise BenchError(f"{field} must be one of {', '.join(allowed)}, not {getattr(self, field)!r}")

    @property
    def radius(self) -> float:
        """epsilon in the [0, 1] range of the images."""
        return self.epsilon / 255.0

    def project(self, adversarial: Tensor, clean: Tensor, scores: Tensor | None = None) -> Tensor:
        """The nearest images inside the budget: L-inf ball, [0, 1], and at most `pixels` positions.

        With a pixel budget the positions kept are those with the largest `scores` (N×H×W), by
        default the largest summed change over R, G, B.
        """
        change = (adversarial - clean).clamp_(-self.radius, self.radius)
        if self.pixels is not None and self.pixels < clean.shape[-1] * clean.shape[-2]:
            if scores is None:
                scores = change.detach().abs().sum(dim=1)
            kept = scores.flatten(1).topk(self.pixels, dim=1).indices
            mask = torch.zeros_like(scores).flatten(1).scatter_(1, kept, 1.0).view_as(scores)
            change = change * mask.unsqueeze(1)
        return change.add_(clean).clamp_(0.0, 1.0)


@dataclass(frozen=True)
class Guides:
    """Clean images that an attack with the need "gallery" may read: the side of the data it does not perturb.

    Attributes: images uint8 RGB M×H×W×3; identities and cameras int64 M.
    """

    images: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Clean images to attack, with no more than the attack's needs declare.

    Attributes:
        images: float32 RGB N×3×H×W in [0, 1], exactly representable in 8 bits.
        identities: int64 N, or None unless the attack needs "labels".
        guides: None unless the attack needs "gallery".
    """

    images: Tensor
    identities: Tensor | None = None
    guides: Guides | None = None


class Attack(Protocol):
    """A frozen dataclass of settings with `craft`, and `fit` where it must learn first.

    Attributes:
        needs: what it asks of the source and the data: "gradients", "logits", "labels", "gallery".
        citation: where it was published.

    An attack never sees a target. `craft` must draw every random number from `generator`.
    An attack that learns also has

        fit(source: Victim, data: TrainingData, threat: ThreatModel, context: FitContext) -> State

    and receives that state in `craft`; `data` is what the source was trained on.

    A registered class may declare `version: ClassVar[int]`, as a Victim may: raise it when the results change. The
    random numbers that it is given stay the same.

    For the audit of a victim it may say its `family`: what it climbs, such as "logits", in `steps` steps (1 without).
    Attacks of one family are compared by their steps, and each by its epsilon.

    For the time left it may say how much work it is, in forward passes of one image (a backward pass counts as two):
    `craft_work` per image and `fit_work` in all. They change no result.
    """

    @property
    def needs(self) -> frozenset[Need]: ...

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        """Adversarial images, float32 N×3×H×W in [0, 1], within `threat` of `batch.images`."""
        ...


def distances(queries: Tensor, gallery: Tensor, distance: Distance) -> Tensor:
    """Q×D and G×D embeddings → Q×G distances: squared Euclidean or 1 − cosine, as torchreid ranks them."""
    if distance == "cosine":
        return 1.0 - functional.normalize(queries, dim=1) @ functional.normalize(gallery, dim=1).T
    squares = queries.square().sum(1, keepdim=True) + gallery.square().sum(1)
    return squares - 2.0 * queries @ gallery.T


__all__ = [
    "ADDED_LATER", "IMAGENET_MEAN", "IMAGENET_STD", "Attack", "Batch", "Checkpoint", "Defence", "Distance",
    "FitContext", "Guides", "Need", "State", "ThreatModel", "TrainingData", "Victim", "VictimRecipe", "WrappedVictim",
    "distances", "preprocess", "to_float", "to_uint8",
]  # fmt: skip
