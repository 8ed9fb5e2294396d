"""Victims: ReID models, recipes that train one, and defences that turn one into a defended one."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from reid_attack_bench.contracts.distance import Distance, distances
from reid_attack_bench.contracts.training import FitContext, State, TrainingData


@dataclass(frozen=True)
class PublishedValues:
    """Published values of a model without attack, in %."""

    rank1: float
    mAP: float  # noqa: N815  as in every table


class Victim(nn.Module):
    """Base class of ReID models: images in, embeddings out.

    Subclass it, set the class attributes, implement `embed`. The harness puts it in eval mode, freezes its parameters
    and moves it to the device of the run.

    Attributes:
        name: name in tables; the class name if empty.
        distance: distance that ranks its embeddings, "euclidean" or "cosine". Not read where it overrides `compare`.
        input_size: (height, width) that the model resizes to, in pixels.
        randomised: True if two calls on one image may differ.
        differentiable: False if gradients do not reach the images; such a victim is only a target.
        classifies: whether `logits` returns scores. By default True for a class that overrides `logits`; set it to
            False if they depend on the weights and are missing.
        own_comparison: whether `compare` ranks in its own way. By default True for a class that overrides it.
        differentiable_comparison: False if no gradient passes through `compare`. Attacks that climb it are then "not
            applicable".
        reranks: whether `rerank` returns distances. By default True for a class that overrides it.
        defence: short description of its defence; empty for an undefended model.
        citation: publication (paper, arXiv number or URL).
        trained_on: name of its training data set, if known.
        training_data: names of all its training data sets, where they are several; for notes on withdrawn ones.
        architecture: name of its network, if known. Two networks of one name that were trained on different data sets
            are "cross-dataset" to each other.
        published: name of a data set → values that were published for this model on it. On that data set the model must
            reproduce them before it is attacked; see Adding a victim.
        key_settings: settings that decide embeddings and are neither options nor weights, such as those read from a
            file; part of the store's keys.
        uses_cameras: True for a model that takes the camera of each image, such as TransReID with SIE: its `embed`, and
            each other method that it defines, takes them as a second argument, `embed(images, cameras)`, int64 N: those
            of the data set, −1 where unknown. It must answer for every camera, also one that it was not trained on.
            Whoever embeds and attacks it, except for its own code, gives images alone; see `cameras`.
        adapted: True for a stand-in whose defence the attack knows, see `adversary.adaptive`. Set by the harness.
        list_length: gallery images at the head of the result list that `suspicion_in_list` judges; 0 without such a
            detector.
        max_batch: largest batch per forward pass when memory is short, see `steps.passes`; None for no limit. Set by
            the harness.
        version: for a registered class: raise it when the same weights give other embeddings. None, or one that is only
            inherited, stands for a digest of the source file, so that every edit makes new results.
    """

    name: str = ""
    distance: Distance = "euclidean"
    input_size: tuple[int, int] = (256, 128)
    randomised: bool = False
    differentiable: bool = True
    classifies: bool = False
    own_comparison: bool = False
    differentiable_comparison: bool = True
    reranks: bool = False
    defence: str = ""
    citation: str = ""
    trained_on: str = ""
    training_data: tuple[str, ...] = ()
    architecture: str = ""
    published: Mapping[str, PublishedValues] = MappingProxyType({})
    key_settings: Mapping[str, Any] = MappingProxyType({})
    uses_cameras: bool = False
    adapted: bool = False
    list_length: int = 0
    max_batch: int | None = None
    version: ClassVar[int | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        base = next(each for each in cls.__mro__[1:] if issubclass(each, Victim))
        for name, method in _DECLARED_BY.items():
            if name not in vars(cls) and getattr(cls, method) is not getattr(base, method):
                setattr(cls, name, True)

    def embed(self, images: Tensor) -> Tensor:
        """N×3×H×W float32 RGB in [0, 1] → N×D embeddings, differentiable in `images`.

        A victim with a `compare` of its own may return any tree of tensors (dict, list, tuple, nested), the first axis
        of each of length N; see `contracts.features`.
        """
        raise NotImplementedError

    def compare(self, query: Any, gallery: Any) -> Tensor:
        """Features of Q and of G images, as `embed` returns them → Q×G distances, smaller is nearer; `distance`.

        Override it for a model that does not rank by one distance of vectors: parts with visibility, aligned stripes.
        A value depends on its two images alone, since galleries are compared in blocks. It is finite: for a pair that
        cannot be compared return a distance above all others. Attacks climb it: keep it differentiable, or declare
        differentiable_comparison = False.
        """
        return distances(query, gallery, self.distance)

    def rerank(self, query: Any, gallery: Any) -> Tensor | Iterable[Tensor] | None:
        """Distances that rank an evaluation in place of `compare`, from all its queries and its whole gallery at once.

        For re-ranking and query expansion, which see more than a pair of images. None for a model without. Only clean
        and adversarial images are ranked by it; attacks, also those by queries, see `compare`.

        Args:
            query, gallery: features of all Q queries and G gallery images.

        Returns:
            Q×G distances, smaller is nearer; or consecutive blocks of their rows.
        """
        return None

    def logits(self, images: Tensor) -> Tensor | None:
        """N×3×H×W in [0, 1] → N×K scores over the victim's own training identities, or None."""
        return None

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embeddings and logits together; override where one pass gives both."""
        return self.embed(images), self.logits(images)

    def purify(self, images: Tensor) -> Tensor:
        """Input transformation that defends the model, N×3×H×W in [0, 1] → the same; the identity by default.

        Put the transformation of a defence here, differentiable or not, and call `self.purify` in `embed` and
        `logits`. An adaptive attack then approximates its gradient (see `adversary.adaptive`).
        """
        return images

    def suspicion(self, images: Tensor) -> Tensor | None:
        """Detector scores: N values, positive for refused queries; None for a model without a detector.

        Differentiable in `images` if possible: an adaptive attack then descends it for images that are refused.
        """
        return None

    def rejects(self, images: Tensor) -> Tensor | None:
        """Queries that a detector refuses, bool N; None for a model without a detector.

        A refused query is a miss, clean or adversarial: not to be found is what a person who evades wants. Columns
        "…_as_clean" count a refused adversarial query as its clean version instead. Override it only for a detector
        without `suspicion`.
        """
        suspicion = self.suspicion(images)
        return None if suspicion is None else suspicion > 0

    def suspicion_in_list(self, queries: Tensor, nearest: Tensor, distances: Tensor) -> Tensor:
        """Scores of a detector that sees the result list of each query; called for a model with `list_length`.

        A query is refused if this is positive or `rejects` says so. Differentiable if possible: an adaptive attack that
        sees the gallery then descends it for queries that are refused.

        Args:
            queries: N×D embeddings.
            nearest: N×k×D embeddings of the gallery images that are nearest to each query, the nearest first; k is
                `list_length`, or the size of a smaller gallery. Nothing is left out as junk: a system knows no labels.
            distances: N×k, theirs to the query, in the distance of the victim.

        Returns:
            N values, positive for refused queries.
        """
        raise NotImplementedError

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.embed(*inputs)


_DECLARED_BY = {"classifies": "logits", "own_comparison": "compare", "reranks": "rerank"}
"""Attribute that says whether a class overrides a method → the method."""

_DECLARED = [name for name in Victim.__annotations__ if name not in ("version", "published", "key_settings")]


class WrappedVictim(Victim):
    """A victim around another one, with the same attributes and behaviour except for what a subclass overrides.

    Args:
        victim: the inner model; it is not changed.
        defence: short description, appended to that of the inner model.
    """

    def __init__(self, victim: Victim, defence: str = "") -> None:
        super().__init__()
        self.victim = victim
        for name in _DECLARED:
            setattr(self, name, getattr(victim, name))
        for name in ("own_comparison", "reranks"):
            method = _DECLARED_BY[name]
            if getattr(type(self), method) is not getattr(WrappedVictim, method):
                setattr(self, name, True)
        self.defence = " + ".join(part for part in (victim.defence, defence) if part)

    def embed(self, images: Tensor) -> Tensor:
        return self.victim.embed(images)

    def logits(self, images: Tensor) -> Tensor | None:
        return self.victim.logits(images)

    def compare(self, query: Any, gallery: Any) -> Tensor:
        return self.victim.compare(query, gallery) if self.victim.own_comparison else super().compare(query, gallery)

    def rerank(self, query: Any, gallery: Any) -> Tensor | Iterable[Tensor] | None:
        return self.victim.rerank(query, gallery)

    def suspicion(self, images: Tensor) -> Tensor | None:
        return self.victim.suspicion(images)

    def suspicion_in_list(self, queries: Tensor, nearest: Tensor, distances: Tensor) -> Tensor:
        return self.victim.suspicion_in_list(queries, nearest, distances)

    def rejects(self, images: Tensor) -> Tensor | None:
        refused = super().rejects(images)
        return self.victim.rejects(images) if refused is None else refused


class Recipe(ABC):
    """Base class of victims that the bench trains. Subclass it as a frozen dataclass of settings.

    Attributes:
        version: as in Victim; raise it when training gives other weights. The random numbers stay the same.
        epochs: passes over the training split; it only serves to estimate run times.
        differentiable: as in Victim, for the victim that `load` returns.
        randomised: as in Victim, for the victim that `load` returns.
        own_comparison: as in Victim, for the victim that `load` returns.
        differentiable_comparison: as in Victim, for the victim that `load` returns.
        defended: whether that victim may have a defence; adaptive attacks of a protocol are then run too.
    """

    version: ClassVar[int | None] = None
    epochs: int = 1
    differentiable: ClassVar[bool] = True
    randomised: ClassVar[bool] = False
    own_comparison: ClassVar[bool] = False
    differentiable_comparison: ClassVar[bool] = True
    defended: ClassVar[bool] = True

    @abstractmethod
    def fit(self, data: TrainingData, context: FitContext) -> State:
        """Train on one data set; returns the weights."""

    @abstractmethod
    def load(self, state: State) -> Victim:
        """The victim with the weights that `fit` returned."""


class Defence(ABC):
    """Base class of defences, which turn a victim into a defended one. Subclass it as a frozen dataclass of settings.

    Attributes:
        version: as in Victim.
        differentiable: False if no gradient passes through the defence.
        randomised: True if two calls on one image may differ; the defended victim must say so too.
        purifies: True if the input transformation is in `purify` of the defended victim.
    """

    version: ClassVar[int | None] = None
    differentiable: ClassVar[bool] = True
    randomised: ClassVar[bool] = False
    purifies: ClassVar[bool] = False

    @abstractmethod
    def defend(self, victim: Victim, state: State | None = None) -> Victim:
        """The defended victim. `victim` must not be changed.

        Args:
            victim: the undefended model.
            state: the result of `fit` for a LearnedDefence; None otherwise.
        """


class LearnedDefence(Defence):
    """Base class of defences that are trained, such as adversarial training and calibrated detectors."""

    @property
    def fit_work(self) -> float:
        """Work of `fit` in forward passes of one image; it only serves to estimate run times."""
        return 10_000.0

    @abstractmethod
    def fit(self, victim: Victim, data: TrainingData, context: FitContext) -> State:
        """Train on the data set that `victim` was trained on; returns the state for `defend`."""


def weights_digest(victim: Victim) -> str:
    """sha256 over the names, shapes and bytes of a victim's parameters and buffers, as 32 hexadecimal digits."""
    total = hashlib.sha256()
    for name, value in sorted(victim.state_dict().items()):
        tensor = value.detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return total.hexdigest()[:32]
