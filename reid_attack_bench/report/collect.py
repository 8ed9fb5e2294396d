"""Results of a run, from its manifest and the store; no model is touched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from torch import Tensor

from reid_attack_bench.contracts import Distance, distances
from reid_attack_bench.data.synthetic import Split
from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics.ranking import top_matches
from reid_attack_bench.report.results import (
    CELL_COLUMNS,
    CLEAN_COLUMNS,
    NOT_APPLICABLE,
    PerQuery,
    Results,
    Retrieved,
    Sheet,
)
from reid_attack_bench.steps import read_crafted, read_ranking, read_splits
from reid_attack_bench.store import Store

_SHEET_QUERIES = 6
_RETRIEVED = 5
_FEATURES = "features.safetensors"
_RANKS = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")
_INTERVALS = ("rank1_low", "rank1_high", "mAP_low", "mAP_high")


def collect(manifest: Mapping[str, Any], store: Store) -> Results:
    """Read every figure that `manifest` (see manifest.py) points to.

    A cell whose step failed, or is not in the store, has a status saying why and no figures.

    Raises:
        CorruptArtefact: a stored file does not match its digest.
    """
    return _Collector(manifest, store).results()


class _Collector:
    def __init__(self, manifest: Mapping[str, Any], store: Store) -> None:
        self.manifest, self.store = manifest, store
        self.failures: Mapping[str, str] = manifest["failures"]
        self.per_query: dict[str, PerQuery] = {}
        self.facts: dict[str, dict[str, Any]] = {}

    def results(self) -> Results:
        suite = self.manifest["suite"]
        cells, clean = [self.cell(c) for c in self.manifest["cells"]], [self.clean(r) for r in self.manifest["clean"]]
        sheets = self.sheets()
        retrieved, galleries = self.retrieved(sheets)
        return Results(
            suite=suite["name"],
            seed=suite["seed"],
            headline_epsilon=suite["headline_epsilon"],
            cells=pd.DataFrame(cells, columns=list(CELL_COLUMNS)),
            clean=pd.DataFrame(clean, columns=list(CLEAN_COLUMNS)),
            per_query=self.per_query,
            sheets=sheets,
            retrieved=retrieved,
            galleries=galleries,
            manifest=dict(self.manifest),
            notes=list(self.manifest["notes"]),
        )

    def clean(self, row: Mapping[str, Any]) -> dict[str, Any]:
        out = {name: row[name] for name in ("victim", "dataset", "synthetic", "home", "features_key", "rank_key")}
        card = self.read("victim", row["victim_key"]) or {}
        out |= {name: card.get(name, "") for name in ("defence", "distance", "citation", "weights")}
        out["randomised"] = bool(card.get("randomised") or card.get("found_randomised"))
        out["zero_gradient"], out["detector"] = card.get("zero_gradient"), card.get("detector", "")
        figures = self.ranking("clean-rank", row["rank_key"])
        out["status"] = self.status(row["rank_key"], figures)
        if figures is not None:
            out |= {name: figures[name] for name in (*_RANKS, *_INTERVALS, "queries")}
        return out

    def cell(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        threat = cell["threat"]
        out = {name: cell[name] for name in ("attack", "access", "source", "target", "dataset", "synthetic")}
        out |= {"epsilon": threat["epsilon"], "pixels": threat["pixels"], "perturbs": threat["perturbs"]}
        out |= {"relation": cell.get("relation", ""), "family": cell.get("family", "")}
        out |= {"steps": cell.get("steps", 0), "adaptive": cell.get("adaptive", 0)}
        out |= {"needs": "+".join(cell["needs"]), "seed": cell.get("seed", self.manifest["suite"]["seed"])}
        out |= {name: cell[name] for name in ("craft_key", "features_key", "rank_key")}
        before = self.ranking("clean-rank", cell["clean_rank_key"])
        figures = self.ranking("rank", cell["rank_key"]) if cell["rank_key"] else None
        impossible = NOT_APPLICABLE + cell["impossible"] if cell["impossible"] else ""
        out["status"] = impossible or self.status(cell["rank_key"], figures)
        if before is not None:
            out |= {f"clean_{name}": before[name] for name in _RANKS}
        if figures is not None and before is not None:
            out |= {name: figures[name] for name in (*_RANKS, *_INTERVALS, "queries")}
            out["rejected"] = figures.get("rejected")
            out |= {f"drop_{name}": before[name] - figures[name] for name in _RANKS}
        measures = self.read("measure", cell["measure_key"]) if cell["measure_key"] else None
        if measures is not None and figures is not None:
            out |= {"linf": measures["linf"], "l2": measures["l2"], "pixels_changed": measures["pixels"]}
            out |= {name: measures.get(name) for name in ("ssim", "ms_ssim", "lpips", "grid")}
        return out

    def status(self, key: str, figures: Mapping[str, Any] | None) -> str:
        if figures is not None:
            return "ok"
        return self.failures.get(key, "not in the store: run the suite again")

    def read(self, kind: str, key: str) -> dict[str, Any] | None:
        """What a stored step says of itself, after checking its files; None where it is not stored."""
        if key not in self.facts:
            if key in self.failures or not self.store.has(kind, key):
                return None
            if kind != "victim":  # a victim's weights are not read for a report
                self.store.open(kind, key)
            self.facts[key] = dict(self.store.manifest(kind, key)["facts"])
        return self.facts[key]

    def ranking(self, kind: str, key: str) -> dict[str, Any] | None:
        facts = self.read(kind, key)
        if facts is not None and key not in self.per_query:
            ranking = read_ranking(self.store.folder(kind, key))
            self.per_query[key] = PerQuery(ranking.hits[:, 0], ranking.ap, ranking.valid)
        return facts

    def sheets(self) -> list[Sheet]:
        homes = {(row["victim"], row["dataset"]) for row in self.manifest["clean"] if row["home"]}
        made: dict[tuple[str, str, str], Sheet] = {}
        shown: set[tuple[Any, ...]] = set()  # one seed of an attack is enough to see
        for cell in self.manifest["cells"]:
            key, at_home = cell["craft_key"], (cell["source"], cell["dataset"]) in homes
            place = (key, cell["source"], cell["dataset"])
            if not key or not at_home or place in made or key in self.failures or not self.store.has("craft", key):
                continue
            same = (cell["attack"], *cell["threat"].values(), cell["source"], cell["dataset"])
            if same in shown:
                continue
            crafted = read_crafted(self.store.open("craft", key)).get("query")
            if crafted is None or not self.store.has("data", cell["data_key"]):
                continue
            clean = read_splits(self.store.folder("data", cell["data_key"]))["query"].images
            chosen = np.unique(np.linspace(0, len(clean) - 1, _SHEET_QUERIES).astype(int))
            shown.add(same)
            made[place] = Sheet(
                cell["attack"],
                cell["threat"]["epsilon"],
                cell["source"],
                cell["dataset"],
                clean[chosen],
                crafted[chosen],
                cell["threat"]["pixels"],
                chosen,
                key,
            )
        return list(made.values())

    def retrieved(self, sheets: list[Sheet]) -> tuple[dict[str, Retrieved], dict[str, np.ndarray]]:
        """What each target finds for the queries of `sheets`, and the galleries that it finds it in.

        Only the rows in question are read of the attacked embeddings.
        """
        chosen = {sheet.craft_key: sheet.queries for sheet in sheets}
        clean = {(row["victim"], row["dataset"]): row for row in self.manifest["clean"]}
        found: dict[str, Retrieved] = {}
        galleries: dict[str, np.ndarray] = {}
        before: dict[tuple[str, tuple[int, ...]], np.ndarray] = {}
        # target by target, so that one gallery's embeddings are in memory at a time
        for (victim, dataset), row in clean.items():
            if row["rank_key"] not in self.facts or not self.store.has("clean", row["features_key"]):
                continue
            card, gallery = self.read("victim", row["victim_key"]) or {}, None
            for cell in self.manifest["cells"]:
                here = (cell["target"], cell["dataset"]) == (victim, dataset) and cell["rank_key"] in self.per_query
                if not here or cell["craft_key"] not in chosen or not self.store.has("features", cell["features_key"]):
                    continue
                splits = read_splits(self.store.folder("data", cell["data_key"]))
                galleries.setdefault(dataset, splits["gallery"].images)
                queries = chosen[cell["craft_key"]]
                if gallery is None:
                    gallery = _Gallery(self.store.folder("clean", row["features_key"]), splits, card["distance"])
                place = (row["features_key"], tuple(queries))
                if place not in before:
                    before[place] = gallery.nearest(gallery.rows(gallery.folder, queries), queries)
                attacked = gallery.rows(self.store.folder("features", cell["features_key"]), queries)
                after = gallery.nearest(attacked, queries)
                found[cell["rank_key"]] = Retrieved(
                    before[place], after, gallery.correct(before[place], queries), gallery.correct(after, queries)
                )
        return found, galleries


class _Gallery:
    """The embedded gallery of one target on one data set."""

    def __init__(self, folder: Path, splits: Mapping[str, Split], distance: Distance) -> None:
        self.folder, self.query, self.gallery, self.distance = folder, splits["query"], splits["gallery"], distance
        with safe_open(folder / _FEATURES, framework="pt") as file:
            self.embeddings = file.get_tensor("gallery")

    def rows(self, folder: Path, queries: np.ndarray) -> Tensor:
        """The embeddings of some queries, N×D."""
        with safe_open(folder / _FEATURES, framework="pt") as file:
            part = file.get_slice("query")
            return torch.cat([part[int(row) : int(row) + 1] for row in queries])

    def nearest(self, embeddings: Tensor, queries: np.ndarray) -> np.ndarray:
        return top_matches(
            distances(embeddings, self.embeddings, self.distance).numpy(),
            self.query.identities[queries],
            self.gallery.identities,
            self.query.cameras[queries],
            self.gallery.cameras,
            k=_RETRIEVED,
        )

    def correct(self, nearest: np.ndarray, queries: np.ndarray) -> np.ndarray:
        return (self.gallery.identities[nearest] == self.query.identities[queries][:, None]) & (nearest >= 0)


def read_manifest(run_dir: Path) -> dict[str, Any]:
    """manifest.json of a finished run.

    Raises:
        BenchError: the folder is not a run.
    """
    path = run_dir / "manifest.json"
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        raise BenchError(f"{run_dir} is not a run: it has no manifest.json") from None
    except ValueError as error:
        raise BenchError(f"{path} is not valid JSON ({error}); run the suite again") from error
