"""Oracles: all that a query attack sees of its source."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from reid_attack_bench.contracts.distance import Distance
from reid_attack_bench.contracts.threat import Sees
from reid_attack_bench.errors import AccessError


class Oracle(ABC):
    """Answers of a retrieval system about the images of one batch, one form of answer only, counted per image.

    Answers carry no gradients. The gallery is that of the evaluation: without the images that are junk for a query,
    those of its own identity taken by its own camera.

    Attributes:
        form: answers that are given, as ThreatModel.sees: "embedding", "distances" or "ranking".
        distance: distance that the system ranks by; not read where it has a comparison of its own.
        own_comparison: as in Victim.
        budget: largest number of queries per image.
    """

    form: Sees
    distance: Distance
    budget: int
    own_comparison: bool = False

    @property
    @abstractmethod
    def remaining(self) -> Tensor:
        """Queries left, int64 N, for each image of the batch."""

    @abstractmethod
    def embed(self, images: Tensor, rows: Tensor | None = None) -> Tensor:
        """Embeddings M×D.

        Args:
            images: M×3×H×W in [0, 1].
            rows: int64 M, the images of the batch that pay for the queries; None for all N in order.

        Raises:
            AccessError: another form than "embedding", or more queries than the budget.
        """

    @abstractmethod
    def distances(self, images: Tensor, rows: Tensor | None = None) -> Tensor:
        """Distances M×G to the gallery, +inf for junk; arguments and errors as for `embed`, form "distances"."""

    def paired(self, first: Tensor, second: Tensor) -> Tensor:
        """N distances of equal rows of N×D and N×D embeddings by a comparison of the system's own; it is no query.

        Raises:
            AccessError: the system has none.
        """
        raise AccessError(f"distances of embeddings are {self.distance}: compute them")

    @abstractmethod
    def ranking(self, images: Tensor, rows: Tensor | None = None) -> Tensor:
        """Identities of the nearest `ThreatModel.top` gallery images in order, int64 M×top.

        −1 where the gallery is shorter. Arguments and errors as for `embed`, form "ranking".
        """

    @abstractmethod
    def correct(self, identities: Tensor | None = None) -> Tensor:
        """Bool N×G: gallery images of the identity of each image of the batch, the columns of `distances`.

        Args:
            identities: int64 N, for example the targets, in place of those of the batch.

        Raises:
            AccessError: the attack does not declare that it needs "labels".
        """
