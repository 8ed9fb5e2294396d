"""Victims that are told the camera of each image, behind the interface of all others: images in, embeddings out."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reid_attack_bench.contracts.cameras import cameras_of, without_cameras
from reid_attack_bench.contracts.features import Packed, packed
from reid_attack_bench.contracts.provenance import UNKNOWN
from reid_attack_bench.contracts.victim import Victim, WrappedVictim
from reid_attack_bench.errors import VictimError

_TOLD = ("embed", "logits", "outputs", "suspicion", "rejects")


def bound(victim: Victim) -> Victim:
    """`victim` with images as its only argument and N×D embeddings; itself if it is that already.

    Cameras are those that the images know, see `with_cameras`. Features for a comparison of its own are packed, see
    `features`. Around a defence of one that uses cameras, the images that the
    defence hands on without cameras, such as those that it decoded with NumPy, have those of the images it was given.

    Raises:
        VictimError: it declares `uses_cameras`, but a method of its own does not take them.
    """
    return victim if isinstance(victim, Packed) else packed(_with_cameras(victim))


def _with_cameras(victim: Victim) -> Victim:
    if isinstance(victim, (_Told, _Telling)):
        return victim
    told = [part for part in victim.modules() if isinstance(part, _Told)]
    if told:
        return _Telling(victim, told)
    return _Told(victim) if victim.uses_cameras else victim


def unbound(victim: Victim) -> Victim:
    """The victim that `bound` was given."""
    inner = victim.victim if isinstance(victim, Packed) else victim
    return inner.victim if isinstance(inner, (_Told, _Telling)) else inner


class Abroad(WrappedVictim):
    """A victim on a data set whose cameras it was not trained on: it is told none, for numbers are of one data set."""

    def __init__(self, victim: Victim) -> None:
        super().__init__(victim)
        self.uses_cameras = False


class _Told(WrappedVictim):
    """A model with `uses_cameras`. `given` are cameras for images that know none, int64 N, while they are known."""

    def __init__(self, victim: Victim) -> None:
        super().__init__(victim)
        self.name = victim.name or type(victim).__name__
        self.given: Tensor | None = None
        for method in filter(self._defines, _TOLD):
            if not _takes_two(getattr(victim, method)):
                raise VictimError(
                    f"victim {self.name} declares uses_cameras: define {method}(self, images, cameras), with cameras "
                    "int64 N, −1 where unknown"
                )

    def embed(self, images: Tensor) -> Tensor:
        return self._told("embed", images)

    def logits(self, images: Tensor) -> Tensor | None:
        return self._told("logits", images) if self._defines("logits") else None

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self._told("outputs", images) if self._defines("outputs") else (self.embed(images), self.logits(images))

    def suspicion(self, images: Tensor) -> Tensor | None:
        return self._told("suspicion", images) if self._defines("suspicion") else None

    def rejects(self, images: Tensor) -> Tensor | None:
        suspicion = self.suspicion(images)
        if suspicion is not None:
            return suspicion > 0
        return self._told("rejects", images) if self._defines("rejects") else None

    def _defines(self, method: str) -> bool:
        return getattr(type(self.victim), method) is not getattr(Victim, method)

    def _told(self, method: str, images: Tensor) -> Any:
        cameras = self._cameras(images)
        try:
            return getattr(self.victim, method)(without_cameras(images), cameras)
        except IndexError as error:  # of nn.Embedding, for an index beyond its rows
            raise VictimError(
                f"victim {self.name}: {method} raised IndexError ({error}) for cameras {cameras.unique().tolist()}: "
                "it must answer for every camera, also for one that it was not trained on, and for −1, unknown"
            ) from error

    def _cameras(self, images: Tensor) -> Tensor:
        own = cameras_of(images)
        if own is not None:
            return own
        if self.given is None:
            return torch.full((len(images),), UNKNOWN, device=images.device)
        if len(images) == len(self.given):
            return self.given.to(images.device)
        if len(self.given.unique()) == 1:
            return self.given[:1].expand(len(images)).to(images.device)
        raise VictimError(
            f"victim {self.name}: its defence gives it {len(images)} images for {len(self.given)}, and their cameras "
            "are lost: make them of the images with torch (cat, repeat), or mark them with contracts.with_cameras, −1 "
            "where unknown"
        )


class _Telling(WrappedVictim):
    """A victim around models in `told`, such as a defence of one, that tells them the cameras of its own images."""

    def __init__(self, victim: Victim, told: list[_Told]) -> None:
        super().__init__(victim)
        self.uses_cameras, self._models = True, told
        self.name = victim.name or type(victim).__name__

    def embed(self, images: Tensor) -> Tensor:
        return self._telling(self.victim.embed, images)

    def logits(self, images: Tensor) -> Tensor | None:
        return self._telling(self.victim.logits, images)

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self._telling(self.victim.outputs, images)

    def suspicion(self, images: Tensor) -> Tensor | None:
        return self._telling(self.victim.suspicion, images)

    def rejects(self, images: Tensor) -> Tensor | None:
        return self._telling(self.victim.rejects, images)

    def _telling(self, method: Callable[[Tensor], Any], images: Tensor) -> Any:
        cameras = cameras_of(images)
        if cameras is None:  # within a call of a defence around this one, which tells
            return method(images)
        before = [model.given for model in self._models]
        try:
            for model in self._models:
                model.given = cameras
            return method(images)
        finally:
            for model, given in zip(self._models, before, strict=True):
                model.given = given


def _takes_two(method: Callable[..., Any]) -> bool:
    try:
        inspect.signature(method).bind(None, None)
    except TypeError:
        return False
    return True
