"""Cost of an attack: passes through the source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from reid_attack_bench.contracts import Victim, WrappedVictim, cameras_of


@dataclass
class Cost:
    """Passes of single images through a model.

    Attributes:
        forward: images passed forward; `embed`, `logits` and `outputs` are one pass each.
        backward: images whose outputs a gradient passed back through.
        without_camera: of the images passed forward, those whose camera a model that uses cameras was not told.
    """

    forward: int = 0
    backward: int = 0
    without_camera: int = 0
    _recomputes: bool = field(default=False, repr=False, compare=False)

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Context in which passes do not count, since they are made again for want of memory."""
        self._recomputes = True
        try:
            yield
        finally:
            self._recomputes = False

    def add_forward(self, images: Tensor, uses_cameras: bool) -> None:
        if self._recomputes:
            return
        self.forward += len(images)
        if uses_cameras:
            cameras = cameras_of(images)
            self.without_camera += len(images) if cameras is None else int((cameras < 0).sum())


class Metered(WrappedVictim):
    """A victim that adds its passes to `cost`."""

    def __init__(self, victim: Victim, cost: Cost) -> None:
        super().__init__(victim)
        self.cost = cost

    def embed(self, images: Tensor) -> Tensor:
        return self._metered(self.victim.embed(images), images)

    def logits(self, images: Tensor) -> Tensor | None:
        logits = self.victim.logits(images)
        return None if logits is None else self._metered(logits, images)

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        embeddings, logits = self.victim.outputs(images)
        if logits is None or not (torch.is_grad_enabled() and embeddings.requires_grad):
            return self._metered(embeddings, images), logits
        # one backward pass, whichever of the two outputs a loss uses
        joint = torch.cat([embeddings, logits], dim=1)
        both = self._metered(joint, images)
        return both[:, : embeddings.shape[1]], both[:, embeddings.shape[1] :]

    def _metered(self, values: Tensor, images: Tensor) -> Tensor:
        count = len(images)
        self.cost.add_forward(images, self.uses_cameras)
        if values.requires_grad:
            values.register_hook(lambda gradient: self._passed_back(count))
        return values

    def _passed_back(self, images: int) -> None:
        self.cost.backward += images
