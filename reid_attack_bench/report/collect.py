"""Results of a run, from its manifest and the store; no model is touched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import digest_of
from reid_attack_bench.metrics import catalogue
from reid_attack_bench.report import retrieval
from reid_attack_bench.report.results import (
    NOT_APPLICABLE,
    PerQuery,
    Results,
    Sheet,
    cell_columns,
    clean_columns,
)
from reid_attack_bench.steps.artefacts import read_crafted, read_ranking, read_splits
from reid_attack_bench.store import Store

_SHEET_QUERIES = 6

_PARTS = ("suite", "store", "notes", "failures", "clean", "cells")

_FORMER_NAMES = {"pixels_changed": "pixels"}  # in stores of earlier versions


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
        cells = pd.DataFrame([self.cell(c) for c in self.manifest["cells"]], columns=cell_columns())
        notes = list(self.manifest["notes"])
        if not self.manifest.get("finished", True):
            notes.append(
                f"Not finished: {int((cells['status'] == 'ok').sum())} of {len(cells)} cells have figures. The run was "
                "interrupted or is still going; its command goes on where it stopped."
            )
        clean = pd.DataFrame([self.clean(r) for r in self.manifest["clean"]], columns=clean_columns())
        sheets = self.sheets()
        retrieved, galleries = retrieval.find(self.manifest, self.store, sheets, self.per_query)
        return Results(
            suite=suite["name"],
            seed=suite["seed"],
            headline_epsilon=suite["headline_epsilon"],
            cells=cells,
            clean=clean,
            per_query=self.per_query,
            sheets=sheets,
            retrieved=retrieved,
            galleries=galleries,
            manifest=dict(self.manifest),
            notes=notes,
            data=self.data(),
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
            out |= {
                name: figures[name] for name in (*catalogue.ranking_names(), *catalogue.interval_columns(), "queries")
            }
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
            out |= {f"clean_{name}": before[name] for name in catalogue.ranking_names()}
        if figures is not None and before is not None:
            out |= {
                name: figures[name] for name in (*catalogue.ranking_names(), *catalogue.interval_columns(), "queries")
            }
            out |= {measure.name: figures.get(measure.name) for measure in catalogue.of_group("detection")}
            out |= {f"drop_{name}": before[name] - figures[name] for name in catalogue.ranking_names()}
        measures = self.read("measure", cell["measure_key"]) if cell["measure_key"] else None
        if measures is not None and figures is not None:
            names = [measure.name for measure in catalogue.of_group("visibility")]
            out |= {name: measures.get(name, measures.get(_FORMER_NAMES.get(name, ""))) for name in names}
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

    def data(self) -> dict[str, str]:
        found = {}
        for step in self.manifest.get("steps", []):
            if step["kind"] == "data" and self.store.has("data", step["key"]):
                config = dict(self.store.manifest("data", step["key"])["config"])
                if "content" in config:  # photographs are the same queries at any size; rendered ones are not
                    config.pop("size", None)
                found[str(config["name"])] = digest_of(config)
        return found

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


def read_manifest(run_dir: Path) -> dict[str, Any]:
    """manifest.json of a run, finished or not.

    Raises:
        BenchError: the folder is not a run, or is one of a version that wrote other things.
    """
    path = run_dir / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise BenchError(f"{run_dir} is not a run: it has no manifest.json") from None
    except ValueError as error:
        raise BenchError(f"{path} is not valid JSON ({error}); run the suite again") from error
    lacking = [name for name in _PARTS if not isinstance(manifest, dict) or name not in manifest]
    if lacking:
        raise BenchError(f"{path} is not the manifest of a run: it has no {', '.join(lacking)}; run the suite again")
    return dict(manifest)
