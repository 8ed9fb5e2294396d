"""What an attack sees of one batch, embedded once for all of its objectives."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import Batch, ReferenceImages, Victim, paired, to_float

_CHUNK = 64  # images per forward pass


@dataclass(frozen=True)
class View:
    """A batch as seen through a source; every embedding is made when it is first asked for."""

    source: Victim
    batch: Batch

    @functools.cached_property
    def own(self) -> Tensor:
        """N×D embeddings of the clean images."""
        with torch.no_grad():
            return self.source.embed(self.batch.images)

    @functools.cached_property
    def gallery(self) -> Tensor:
        """M×D embeddings of the reference images; made once for all batches that share these."""
        assert self.batch.references is not None  # "gallery" is declared in `needs`
        kept = self.batch.references.embedded
        if kept.get("source") is not self.source:
            kept.update(source=self.source, embeddings=self.embedded(self.batch.references))
        return kept["embeddings"]

    @functools.cached_property
    def people(self) -> Tensor:
        """Int64 M, the identities of the reference images."""
        assert self.batch.references is not None
        return torch.from_numpy(self.batch.references.identities).to(self.device)

    @functools.cached_property
    def same(self) -> Tensor:
        """Bool N×M: reference images of the identity of each image."""
        assert self.batch.identities is not None  # "labels" is declared in `needs`
        return self.batch.identities.to(self.device)[:, None] == self.people

    @property
    def device(self) -> torch.device:
        return self.batch.images.device

    def embedded(self, images: ReferenceImages, rows: np.ndarray | None = None) -> Tensor:
        """Embeddings of `images`, or of those at `rows`."""
        chosen = np.arange(len(images.images)) if rows is None else rows
        size = min(_CHUNK, self.source.max_batch or _CHUNK)
        parts = [chosen[first : first + size] for first in range(0, len(chosen), size)]
        with torch.no_grad():
            return torch.cat([self.source.embed(to_float(images.images[part], self.device)) for part in parts])

    def distances(self, images: Tensor, references: Tensor) -> Tensor:
        """N×R distances of N images to R embeddings, as the source ranks them; differentiable in `images`."""
        return self.apart(self.source.embed(images), references)

    def apart(self, embeddings: Tensor, references: Tensor) -> Tensor:
        """N×R distances of embeddings."""
        return self.source.compare(embeddings, references)

    def paired(self, embeddings: Tensor, references: Tensor) -> Tensor:
        """N distances between equal rows."""
        if self.source.own_comparison:
            return paired(self.source, embeddings, references)
        if self.source.distance == "cosine":
            return 1.0 - functional.cosine_similarity(embeddings, references)
        return (embeddings - references).square().sum(dim=1)


Scores = Callable[[Tensor], Tensor]
"""Images N×3×H×W → N values."""
