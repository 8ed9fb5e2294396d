"""Images retrieved by the targets for the example queries, from stored embeddings. No model is run."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from reid_attack_bench.contracts import Distance, RankingProtocol, distances
from reid_attack_bench.data.split import Split
from reid_attack_bench.metrics.pairs import Clothes
from reid_attack_bench.metrics.ranking import top_matches
from reid_attack_bench.report.record import RunRecord
from reid_attack_bench.report.results import Retrieved, Sheet
from reid_attack_bench.steps.artefacts import read_nearest, read_splits
from reid_attack_bench.store import Store

K = 5
"""Number of gallery images per query."""

_FEATURES = "features.safetensors"


def find(
    record: RunRecord, store: Store, sheets: Sequence[Sheet], ranked: Container[str]
) -> tuple[dict[str, Retrieved], dict[str, np.ndarray]]:
    """Retrieved images for the queries of `sheets` by rank_key, and the galleries by data set.

    Only the rows of these queries are read from the attacked embeddings.

    Args:
        ranked: rank_keys of the available rankings.
    """
    chosen = {sheet.craft_key: sheet.queries for sheet in sheets}
    found: dict[str, Retrieved] = {}
    galleries: dict[str, np.ndarray] = {}
    # one target after another, so that only one embedded gallery is in memory
    for row in record.clean:
        if row.rank_key not in ranked or not store.occupied("clean", row.features_key):
            continue
        gallery: _Gallery | None = None
        before: dict[tuple[int, ...], np.ndarray] = {}
        for cell in record.cells:
            here = (cell.target, cell.dataset) == (row.victim, row.dataset) and cell.rank_key in ranked
            if not here or cell.craft_key not in chosen or not store.occupied("features", cell.features_key):
                continue
            if gallery is None:
                splits = read_splits(store.open("data", cell.data_key))
                distance = store.manifest("victim", row.victim_key)["facts"]["distance"]
                protocol = store.manifest("clean-rank", row.rank_key)["config"]["protocol"]
                gallery = _Gallery(store.open("clean", row.features_key), splits, distance, protocol)
                galleries.setdefault(row.dataset, splits["gallery"].images)
            queries = chosen[cell.craft_key]
            if tuple(queries) not in before:
                stored = read_nearest(store.open("clean-rank", row.rank_key))
                before[tuple(queries)] = gallery.nearest(gallery.folder, queries, stored)
            stored = read_nearest(store.open("rank", cell.rank_key))
            after = gallery.nearest(store.open("features", cell.features_key), queries, stored)
            nearest = before[tuple(queries)], after
            found[cell.rank_key] = Retrieved(*nearest, *(gallery.correct(each, queries) for each in nearest))
    return found, galleries


class _Gallery:
    """Gallery embeddings of a target on a data set."""

    def __init__(
        self, folder: Path, splits: Mapping[str, Split], distance: Distance, protocol: RankingProtocol
    ) -> None:
        self.folder, self.query, self.gallery, self.distance = folder, splits["query"], splits["gallery"], distance
        self.by_clothes = protocol == "clothes"
        with safe_open(folder / _FEATURES, framework="pt") as file:
            self.embeddings = file.get_tensor("gallery")

    def nearest(self, folder: Path, queries: np.ndarray, stored: np.ndarray | None) -> np.ndarray:
        """Gallery indices, int64 N×K, for `queries`, whose embeddings are in `folder`.

        Args:
            stored: those of all queries, for a target that does not rank by `distance`.
        """
        if stored is not None:
            return stored[queries][:, :K]
        clothes: Clothes = {}
        if self.by_clothes and self.query.clothes is not None:
            clothes = {"query_clothes": self.query.clothes[queries], "gallery_clothes": self.gallery.clothes}
        return top_matches(
            distances(_query_embeddings(folder, queries), self.embeddings, self.distance).numpy(),
            self.query.identities[queries],
            self.gallery.identities,
            self.query.cameras[queries],
            self.gallery.cameras,
            k=K,
            **clothes,
        )

    def correct(self, nearest: np.ndarray, queries: np.ndarray) -> np.ndarray:
        return (self.gallery.identities[nearest] == self.query.identities[queries][:, None]) & (nearest >= 0)


def _query_embeddings(folder: Path, queries: np.ndarray) -> Tensor:
    with safe_open(folder / _FEATURES, framework="pt") as file:
        part = file.get_slice("query")
        return torch.cat([part[int(row) : int(row) + 1] for row in queries])
