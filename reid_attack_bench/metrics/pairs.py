"""Pairs of a query and a gallery image of one identity, and which of them are junk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from reid_attack_bench.errors import BenchError


class Clothes(TypedDict, total=False):
    """Keyword arguments of functions that rank by clothes; empty where they play no part."""

    query_clothes: np.ndarray | None
    gallery_clothes: np.ndarray | None


@dataclass(frozen=True)
class Side:
    """Labels of the queries, or of the gallery images.

    Attributes:
        identities, cameras: int N.
        clothes: int N; None where they play no part.
    """

    identities: np.ndarray
    cameras: np.ndarray
    clothes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.identities)

    @classmethod
    def of(cls, name: str, identities: np.ndarray, cameras: np.ndarray, clothes: np.ndarray | None = None) -> Side:
        """Checked labels; `name` is for messages."""
        identities, cameras = np.asarray(identities), np.asarray(cameras)
        clothes = None if clothes is None else np.asarray(clothes)
        if identities.ndim != 1 or identities.shape != cameras.shape or len(identities) == 0:
            raise BenchError(
                f"the {name} needs one identity and one camera per image, at least one, not arrays of shape "
                f"{identities.shape} and {cameras.shape}"
            )
        if clothes is not None and clothes.shape != identities.shape:
            raise BenchError(f"the {name} needs one label of clothes per image, not an array of shape {clothes.shape}")
        return cls(identities, cameras, clothes)


@dataclass(frozen=True)
class SameIdentity:
    """Gallery images with the identity of a query: `order[first[q]:last[q]]` for query q.

    Attributes:
        query, gallery: the labels.
    """

    query: Side
    gallery: Side
    order: np.ndarray
    first: np.ndarray
    last: np.ndarray

    # size: the labels of metrics.ranking.rank, in its order
    @classmethod
    def of(
        cls,
        query_identities: np.ndarray,
        gallery_identities: np.ndarray,
        query_cameras: np.ndarray,
        gallery_cameras: np.ndarray,
        query_clothes: np.ndarray | None = None,
        gallery_clothes: np.ndarray | None = None,
    ) -> SameIdentity:
        """Pairs of checked labels. With clothes, images of one identity in the same clothes are junk too.

        Raises:
            BenchError: labels of one side differ in length, or only one side has clothes.
        """
        if (query_clothes is None) != (gallery_clothes is None):
            raise BenchError("labels of clothes are needed of the queries and of the gallery images, or of neither")
        query = Side.of("query", query_identities, query_cameras, query_clothes)
        gallery = Side.of("gallery", gallery_identities, gallery_cameras, gallery_clothes)
        order = np.argsort(gallery.identities, kind="stable")
        grouped = gallery.identities[order]
        return cls(
            query, gallery, order, *(np.searchsorted(grouped, query.identities, side) for side in ("left", "right"))
        )

    def __len__(self) -> int:
        """Number of pairs."""
        return int((self.last - self.first).sum())

    def pairs(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows, gallery columns) of `count` queries from `start` on; rows are 0 … count − 1, ascending."""
        first, last = self.first[start : start + count], self.last[start : start + count]
        found = last - first
        rows = np.repeat(np.arange(count), found)
        return rows, self.order[np.arange(len(rows)) + (last - found.cumsum())[rows]]

    def junk(self, queries: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Whether pairs of one identity are junk, for indices of queries and gallery images that broadcast.

        Junk are two images of one camera, and with clothes two in the same clothes.
        """
        junk: np.ndarray = self.query.cameras[queries] == self.gallery.cameras[images]
        if self.query.clothes is not None and self.gallery.clothes is not None:
            junk |= self.query.clothes[queries] == self.gallery.clothes[images]
        return junk
