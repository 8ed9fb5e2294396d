"""The results of a run: typed rows, per-query outcomes and images, from which every table and plot is made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from reid_attack_bench.metrics import catalogue
from reid_attack_bench.report.record import RunRecord

NOT_APPLICABLE = "not applicable: "


def cell_columns() -> list[str]:
    """Columns of matrix.csv, in order.

    attack: label in the suite; epsilon: budget in 1/255; pixels: pixel budget or empty for all; access: "white-box"
    where source and target are one model, else "transfer", or "query"; needs: what the attack was given, joined by "+";
    source, target: victim labels such as "osnet_x0_25@plaza"; relation: between the two, see suite.RELATIONS, empty
    where the target is evaluated on data it was not trained on; seed: of the attack, see AttackEntry (victims and data
    have the suite's); family, steps: what the attack climbs and in how many steps, for the audit; adaptive: draws of an
    adaptive attack, 0 for one that is not; status: "ok", else why the cell is missing (then every value is empty, never
    zero); if it starts with NOT_APPLICABLE, the cell cannot exist and does not count as missing. Then the measures, see
    metrics.catalogue, and the keys of the artefacts that hold them.
    """
    return [
        "attack", "epsilon", "pixels", "perturbs", "access", "needs", "source", "target", "relation", "dataset",
        "synthetic", "queries", "seed", "family", "steps", "adaptive", "status",
        *catalogue.cell_columns(),
        "craft_key", "features_key", "rank_key",
    ]  # fmt: skip


def clean_columns() -> list[str]:
    """Columns of clean.csv: one row per (victim, data set).

    home: the victim was trained on this data set; randomised: declared so, or two passes were found to differ;
    detector: "suspicion" if it rejects queries and an adaptive attack can follow the gradient of its score, "rejects"
    if it cannot; zero_gradient and the measures at the end: see metrics.catalogue.
    """
    return [
        "victim", "dataset", "synthetic", "home", "defence", "distance", "citation", "weights", "randomised",
        "zero_gradient", "detector", "queries", "status",
        *catalogue.ranking_names(), *catalogue.interval_columns(),
        "features_key", "rank_key",
    ]  # fmt: skip


@dataclass(frozen=True, order=True)
class Setting:
    """One attack under one threat model; epsilon in 1/255; pixels 0 for all pixels."""

    attack: str
    epsilon: int
    pixels: int = 0
    perturbs: str = "query"

    @property
    def budget(self) -> str:
        """Distinguishes this setting from others of its attack, for names: "e8", "e8_k500", "e8_gallery"."""
        pixels = f"_k{self.pixels}" if self.pixels else ""
        return f"e{self.epsilon}{pixels}" + ("" if self.perturbs == "query" else f"_{self.perturbs}")

    @property
    def variant(self) -> str:
        """The attack in words without its epsilon: "pgd", "pgd, 500 pixels", "pgd, gallery attacked"."""
        pixels = f", {self.pixels} pixels" if self.pixels else ""
        return f"{self.attack}{pixels}" + ("" if self.perturbs == "query" else f", {self.perturbs} attacked")


@dataclass(frozen=True)
class CellRow:
    """One cell of the matrix: what was run, and what it did. Fields as in `cell_columns`.

    values: column → value, for the measures that exist; none where status is not "ok" but those without the attack.
    """

    attack: str
    epsilon: int
    pixels: int | None
    perturbs: str
    access: str
    needs: tuple[str, ...]
    source: str
    target: str
    relation: str
    dataset: str
    synthetic: bool
    queries: int | None
    seed: int
    family: str
    steps: int
    adaptive: int
    status: str
    values: Mapping[str, float]
    craft_key: str = ""
    features_key: str = ""
    rank_key: str = ""

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def own(self) -> bool:
        """Whether source and target are one model."""
        return self.source == self.target

    @property
    def kind(self) -> Literal["whitebox", "query", "transfer"]:
        """ "whitebox" or "query" where source and target are one model, else "transfer"."""
        if not self.own:
            return "transfer"
        return "query" if self.access == "query" else "whitebox"

    @property
    def setting(self) -> Setting:
        return Setting(self.attack, self.epsilon, self.pixels or 0, self.perturbs)

    @property
    def place(self) -> tuple[Setting, str, str, str]:
        """The cell without its seed: setting, source, target, data set."""
        return self.setting, self.source, self.target, self.dataset

    def value(self, name: str) -> float:
        """A measure by its column, NaN if there is none."""
        return self.values.get(name, math.nan)

    def columns(self) -> dict[str, Any]:
        """The row of matrix.csv."""
        return {**_fields(self), "needs": "+".join(self.needs), **self.values}


@dataclass(frozen=True)
class CleanRow:
    """One victim on one data set without an attack. Fields as in `clean_columns`; values: column → value."""

    victim: str
    dataset: str
    synthetic: bool
    home: bool
    defence: str
    distance: str
    citation: str
    weights: str
    randomised: bool
    detector: str
    queries: int | None
    status: str
    values: Mapping[str, float]
    features_key: str = ""
    rank_key: str = ""

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    def value(self, name: str) -> float:
        """A measure by its column, NaN if there is none."""
        return self.values.get(name, math.nan)

    def columns(self) -> dict[str, Any]:
        """The row of clean.csv."""
        return {**_fields(self), **self.values}


def _fields(row: CellRow | CleanRow) -> dict[str, Any]:
    return {name: value for name, value in vars(row).items() if name != "values"}


@dataclass(frozen=True)
class PerQuery:
    """Per-query outcome of one ranking. hit: float N, Rank-1 hit in [0, 1]; ap: float N in [0, 1]; valid: bool N."""

    hit: np.ndarray
    ap: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class Sheet:
    """A few queries of one craft for a picture: uint8 RGB N×H×W×3, clean and adversarial.

    queries: int N, which of the data set's queries they are; craft_key: of the artefact, empty where there is none.
    """

    attack: str
    epsilon: int
    source: str
    dataset: str
    clean: np.ndarray
    adversarial: np.ndarray
    pixels: int | None = None
    queries: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    craft_key: str = ""


@dataclass(frozen=True)
class Retrieved:
    """The k nearest gallery images that a target finds for the N queries of a sheet, junk removed.

    before, after: int64 N×k gallery indices for the clean and the adversarial query, −1 where there are fewer;
    correct_before, correct_after: bool N×k, the same identity as the query.
    """

    before: np.ndarray
    after: np.ndarray
    correct_before: np.ndarray
    correct_after: np.ndarray


@dataclass(frozen=True)
class Results:
    """Everything a report needs.

    Attributes:
        record: of the run.
        cells: one row per (attack, threat model, seed, source, target, data set).
        clean: one row per (victim, data set).
        per_query: rank_key → per-query outcome, for cells and clean rows with status "ok".
        sheets: images for the sheets.
        retrieved: rank_key → what the target finds for the queries of the cell's sheet, where there is one.
        galleries: data set → its gallery, uint8 RGB N×H×W×3, where `retrieved` points to it.
        notes: lines that every report must carry (synthetic data, missing LPIPS weights …).
        data: data set → digest of what its images are; equal in two runs on the same images.
    """

    record: RunRecord
    cells: Sequence[CellRow]
    clean: Sequence[CleanRow]
    per_query: dict[str, PerQuery]
    sheets: list[Sheet] = field(default_factory=list)
    retrieved: dict[str, Retrieved] = field(default_factory=dict)
    galleries: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    data: dict[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> list[Setting]:
        """Every attack setting of the run, sorted; also those of which no cell succeeded."""
        return sorted({cell.setting for cell in self.cells})

    @property
    def suite(self) -> str:
        """Name of the suite."""
        return self.record.suite.name

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.record.suite.seed

    @property
    def headline_epsilon(self) -> int:
        """The leaderboard is ordered by the worst case at this epsilon (1/255)."""
        return self.record.suite.headline_epsilon

    @property
    def relations(self) -> tuple[str, ...]:
        """Relations of the cells that the suite is about, white-box if it names none."""
        return self.record.suite.relations or ("white-box",)
