"""Enforced access: the source with what an attack declares and its threat model allows, and nothing else.

A stand-in keeps an honest attack honest: an attack that reads more than it declares fails at once. It is no sandbox;
code that searches the interpreter for the model behind it will find it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reid_attack_bench.contracts import (
    Need,
    Oracle,
    ReferenceImages,
    ThreatModel,
    Victim,
    WrappedVictim,
    paired,
    without_cameras,
)
from reid_attack_bench.errors import AccessError


class Granted(WrappedVictim):
    """A source that gives an attack what it declares: no gradients without "gradients", no logits without "logits".

    The detector of a source is part of what an adaptive attack knows, and of nothing else.
    """

    def __init__(self, victim: Victim, needs: frozenset[Need], attack: str) -> None:
        super().__init__(victim)
        self._needs, self._attack = needs, attack
        self.classifies = victim.classifies and "logits" in needs

    def embed(self, images: Tensor) -> Tensor:
        with self._gradients():
            return self.victim.embed(self._seen(images))

    def logits(self, images: Tensor) -> Tensor | None:
        if "logits" not in self._needs:
            raise AccessError(
                f'attack {self._attack} asks for logits, which it does not declare: add "logits" to its needs'
            )
        with self._gradients():
            return self.victim.logits(self._seen(images))

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        if "logits" not in self._needs:
            return self.embed(images), None
        with self._gradients():
            return self.victim.outputs(self._seen(images))

    def suspicion(self, images: Tensor) -> Tensor | None:
        self._check_detector()
        return self.victim.suspicion(self._seen(images))

    def suspicion_in_list(self, queries: Tensor, nearest: Tensor, distances: Tensor) -> Tensor:
        self._check_detector()
        return self.victim.suspicion_in_list(queries, nearest, distances)

    def rejects(self, images: Tensor) -> Tensor | None:
        self._check_detector()
        return self.victim.rejects(self._seen(images))

    def _check_detector(self) -> None:
        if not self.adapted:
            raise AccessError(
                f"attack {self._attack} asks for the detector of {self.name or 'its source'}, which only an adaptive "
                "attack knows: set adaptive in the suite"
            )

    def _seen(self, images: Tensor) -> Tensor:
        """Without cameras, which another source of the attack may use, for a model that does not."""
        return images if self.uses_cameras else without_cameras(images)

    def _gradients(self) -> torch.set_grad_enabled:
        return torch.set_grad_enabled(torch.is_grad_enabled() and "gradients" in self._needs)


class Gallery:
    """Gallery of a retrieval system as queries see it: embedded once, when the first query asks for it."""

    def __init__(self, images: ReferenceImages, embed: Callable[[np.ndarray], Tensor]) -> None:
        self._images, self._embed = images.images, embed
        self.identities, self.cameras = torch.from_numpy(images.identities), torch.from_numpy(images.cameras)

    @functools.cached_property
    def embeddings(self) -> Tensor:
        """G×D."""
        return self._embed(self._images)


@dataclass(frozen=True)
class Asker:
    """The attack that asks, and identities and cameras, int64 N, of its batch, by which junk is left out."""

    attack: str
    identities: Tensor
    cameras: Tensor


class Counted(Oracle):
    """The oracle of one batch; `labels` says whether the attack declares "labels"."""

    def __init__(self, victim: Victim, threat: ThreatModel, asker: Asker, gallery: Gallery, *, labels: bool) -> None:
        assert threat.queries is not None
        self.form, self.budget, self.distance = threat.sees, threat.queries, victim.distance
        self._asker, self._gallery, self._top, self._labels = asker, gallery, threat.top, labels
        self._asked = torch.zeros(len(asker.identities), dtype=torch.int64)
        self._same = asker.identities[:, None] == gallery.identities
        self._junk = self._same & (asker.cameras[:, None] == gallery.cameras)
        self.own_comparison = victim.own_comparison
        # a closure and no attribute, so that no path of attributes leads to the model
        self._answer = _without_gradients(victim.embed)
        self._compare = lambda query, gallery: victim.compare(query, gallery)
        self._paired = lambda first, second: paired(victim, first, second)

    @property
    def asked(self) -> Tensor:
        """Queries so far, int64 N."""
        return self._asked.clone()

    @property
    def remaining(self) -> Tensor:
        return self.budget - self._asked

    def embed(self, images: Tensor, rows: Tensor | None = None) -> Tensor:
        self._count("embedding", images, rows)
        return self._answer(images)

    def distances(self, images: Tensor, rows: Tensor | None = None) -> Tensor:
        return self._distances("distances", images, rows)

    def paired(self, first: Tensor, second: Tensor) -> Tensor:
        with torch.no_grad():
            return self._paired(first, second) if self.own_comparison else super().paired(first, second)

    def ranking(self, images: Tensor, rows: Tensor | None = None) -> Tensor:
        apart = self._distances("ranking", images, rows)
        nearest = apart.topk(min(self._top, apart.shape[1]), dim=1, largest=False)
        found = self._gallery.identities.to(apart.device)[nearest.indices]
        found[nearest.values.isinf()] = -1
        return torch.nn.functional.pad(found, (0, self._top - found.shape[1]), value=-1)

    def correct(self, identities: Tensor | None = None) -> Tensor:
        if not self._labels:
            raise AccessError(
                f'attack {self._asker.attack} asks which gallery images are correct, which takes "labels" in its needs'
            )
        if identities is not None:
            return identities.cpu()[:, None] == self._gallery.identities
        return self._same.clone()

    def _distances(self, form: str, images: Tensor, rows: Tensor | None) -> Tensor:
        rows = self._count(form, images, rows)
        with torch.no_grad():
            apart = self._compare(self._answer(images), self._gallery.embeddings)
        return apart.masked_fill_(self._junk[rows].to(apart.device), float("inf"))

    def _count(self, form: str, images: Tensor, rows: Tensor | None) -> Tensor:
        if form != self.form:
            raise AccessError(
                f"attack {self._asker.attack} asks for {form}, and its threat model gives {self.form} only"
            )
        rows = torch.arange(len(self._asked)) if rows is None else rows.cpu()
        if len(rows) != len(images):
            raise AccessError(
                f"attack {self._asker.attack} asks about {len(images)} images for {len(rows)} of the batch: give rows"
            )
        asked = self._asked + torch.bincount(rows, minlength=len(self._asked))
        if (asked > self.budget).any():
            image = int(asked.argmax())
            raise AccessError(
                f"attack {self._asker.attack} passed its budget of {self.budget} queries on image {image} of the "
                "batch: it must stop when Oracle.remaining is 0"
            )
        self._asked = asked
        return rows


def _without_gradients(embed: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def answer(images: Tensor) -> Tensor:
        with torch.no_grad():
            return embed(images.detach()).clone()

    return answer
