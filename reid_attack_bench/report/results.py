"""Results of a run: typed rows, per-query outcomes and images."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from reid_attack_bench.checks.result import CheckResult
from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.metrics import catalogue
from reid_attack_bench.report.per_query import PerQuery
from reid_attack_bench.report.record import RunRecord, threat_columns

NOT_APPLICABLE = "not applicable: "

CONTROL_COLUMNS = (
    "control", "control_rank1", "control_mAP", "over_control_mAP", "over_control_mAP_low", "over_control_mAP_high",
    "transfers",
)  # fmt: skip
"""Columns of matrix.csv for transferred attacks where a control was run, see analysis.controls.OverControl."""


def cell_columns() -> list[str]:
    """Columns of matrix.csv, in order.

    attack: label in the suite; epsilon: budget in 1/255; pixels: pixel budget, empty for all pixels; sees,
    query_budget, top, impersonate: see contracts.ThreatModel; access: see plan.Cell; needs: access given to the attack,
    joined by "+"; source, target: victim labels such as "osnet_x0_25@plaza", "A+B" for several sources, "all but T" for
    all but the target T; relation: see suite.RELATIONS, of several sources the closest, empty if the target is
    evaluated on data it was not trained on; synthetic, withdrawn: whether the data set is; seed: seed of the attack,
    see AttackEntry (victims and data use the seed of the suite); family, steps: objective and number of steps, for the
    audit; adaptive: EOT draws of an adaptive attack, else 0; protocol: that the attack belongs to; fitted_on: data set
    that a learned attack was fitted on; status: "ok", or the reason why the cell is missing (then its values are empty,
    never zero); a cell whose status starts with NOT_APPLICABLE cannot exist and does not count as missing. Then the
    measures, see metrics.catalogue, CONTROL_COLUMNS, and the keys of the artefacts.
    """
    return [
        "attack", "epsilon", "pixels", "perturbs", "sees", "query_budget", "top", "impersonate", "access", "needs",
        "source", "target", "relation", "dataset", "synthetic", "withdrawn", "queries", "seed", "family", "steps",
        "adaptive", "protocol", "fitted_on", "status",
        *catalogue.cell_columns(),
        *CONTROL_COLUMNS,
        "craft_key", "features_key", "rank_key",
    ]  # fmt: skip


def clean_columns() -> list[str]:
    """Columns of clean.csv: one row per (victim, data set).

    home: whether the victim was trained on this data set; randomised: declared as randomised, or two forward passes
    differed; detector: "suspicion" for one with a differentiable score, "rejects" for one without, "list" for one that
    judges result lists; zero_gradient and the measures at the end: see metrics.catalogue.
    """
    return [
        "victim", "dataset", "synthetic", "withdrawn", "home", "defence", "distance", "citation", "weights",
        "randomised", "zero_gradient", "detector", "queries", "status",
        *(measure.name for measure in catalogue.clean_and_attacked()), *catalogue.interval_columns(),
        "features_key", "rank_key",
    ]  # fmt: skip


@dataclass(frozen=True, order=True)
class Setting:
    """One attack under one threat model.

    epsilon: in 1/255; pixels, queries, top: 0 where the threat model sets no such limit; impersonate: as in
    contracts.ThreatModel, "" for an attack that hides.
    """

    attack: str
    epsilon: int
    pixels: int = 0
    perturbs: str = "query"
    queries: int = 0
    top: int = 0
    impersonate: str = ""

    @classmethod
    def of(cls, attack: str, threat: ThreatModel) -> Setting:
        """The setting of an attack, by its label, under `threat`."""
        return cls._from(attack, threat_columns(threat))

    @classmethod
    def _from(cls, attack: str, threat: Mapping[str, Any]) -> Setting:
        """The setting of an attack and of its columns, as `threat_columns` gives them."""
        limits = (threat["query_budget"] or 0, threat["top"] or 0, threat["impersonate"])
        return cls(attack, threat["epsilon"], threat["pixels"] or 0, threat["perturbs"], *limits)

    @classmethod
    def of_row(cls, row: CellRow | CostRow) -> Setting:
        """The setting of a row."""
        return cls._from(row.attack, vars(row))

    @property
    def budget(self) -> str:
        """Distinguishes this setting from others of its attack, for names.

        "e8"; "e8_k500" with 500 pixels; "e8_q1000" with 1,000 queries; "e8_gallery"; "e8_to_random".
        """
        parts = [f"e{self.epsilon}"]
        parts += [f"{letter}{limit}" for letter, limit in self._limits("k", "q", "top") if limit]
        parts += [] if self.perturbs == "query" else [self.perturbs]
        return "_".join([*parts, *([f"to_{self.impersonate}"] if self.impersonate else [])])

    @property
    def variant(self) -> str:
        """The attack in words without its epsilon: "pgd", "pgd, 500 pixels", "pgd, gallery attacked"."""
        parts = [self.attack]
        parts += [f"{limit:,} {word}" for word, limit in self._limits("pixels", "queries", "retrieved") if limit]
        parts += [] if self.perturbs == "query" else [f"{self.perturbs} attacked"]
        return ", ".join([*parts, *([f"to {self.impersonate} identity"] if self.impersonate else [])])

    def _limits(self, *names: str) -> list[tuple[str, int]]:
        return list(zip(names, (self.pixels, self.queries, self.top), strict=True))


@dataclass(frozen=True)
class CellRow:
    """A cell of the matrix. Fields as in `cell_columns`.

    values: column → value of the available measures; if status is not "ok", only those without attack.
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
    sees: str = "gradients"
    query_budget: int | None = None
    top: int | None = None
    impersonate: str = ""
    protocol: str = ""
    fitted_on: str = ""
    withdrawn: bool = False

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def own(self) -> bool:
        """Whether the target is the source, or one of several sources."""
        return self.access != "transfer"

    @property
    def kind(self) -> Literal["whitebox", "query", "transfer"]:
        """ "whitebox" or "query" if the target is a source, else "transfer"."""
        if not self.own:
            return "transfer"
        return "query" if self.access == "query" else "whitebox"

    @functools.cached_property
    def setting(self) -> Setting:
        return Setting.of_row(self)

    @property
    def place(self) -> tuple[Setting, str, str, str]:
        """(setting, source, target, data set): the cell without its seed."""
        return self.setting, self.source, self.target, self.dataset

    def value(self, name: str) -> float:
        """Value of a measure by column name, NaN if missing."""
        return self.values.get(name, math.nan)

    def columns(self) -> dict[str, Any]:
        """The row of matrix.csv."""
        return {**_fields(self), "needs": "+".join(self.needs), **self.values}


@dataclass(frozen=True)
class CleanRow:
    """A victim on a data set without attack. Fields as in `clean_columns`; checks: only notes and faults."""

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
    checks: tuple[CheckResult, ...] = ()
    withdrawn: bool = False

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    def value(self, name: str) -> float:
        """Value of a measure by column name, NaN if missing."""
        return self.values.get(name, math.nan)

    def columns(self) -> dict[str, Any]:
        """The row of clean.csv."""
        return {**_fields(self), **self.values}


def _fields(row: CellRow | CleanRow) -> dict[str, Any]:
    return {each.name: getattr(row, each.name) for each in fields(row) if each.name not in ("values", "checks")}


@dataclass(frozen=True)
class Sheet:
    """Example queries of a craft step. clean, adversarial: uint8 RGB N×H×W×3.

    queries: int N, indices of the queries in the data set; craft_key: key of the artefact, empty if there is none.
    """

    setting: Setting
    source: str
    dataset: str
    clean: np.ndarray
    adversarial: np.ndarray
    queries: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    craft_key: str = ""


@dataclass(frozen=True)
class Retrieved:
    """The k nearest gallery images of a target for the N queries of a sheet, without junk images.

    before, after: int64 N×k gallery indices for the clean and the adversarial query, −1 if there are fewer;
    correct_before, correct_after: bool N×k, whether the identity equals that of the query.
    """

    before: np.ndarray
    after: np.ndarray
    correct_before: np.ndarray
    correct_after: np.ndarray


@dataclass(frozen=True)
class CostRow:
    """Cost of one attack under one threat model on one source and data set, a row of costs.csv.

    None where it is not known: the step is not stored, or was by a version that did not count.

    Attributes:
        images: number of images attacked.
        forward_passes, backward_passes, queries_per_image: of crafting, mean per image, see metrics.catalogue.
        seconds_per_image: wall-clock time of the step craft over its images, on the machine of the run.
        fit_forward_passes, fit_backward_passes, fit_seconds: of training a learned attack, in all.
        craft_key: of the artefact.
    """

    attack: str
    epsilon: int
    pixels: int | None
    perturbs: str
    sees: str
    query_budget: int | None
    top: int | None
    impersonate: str
    source: str
    dataset: str
    seed: int
    images: int | None
    forward_passes: float | None
    backward_passes: float | None
    queries_per_image: float | None
    seconds_per_image: float | None
    fit_forward_passes: float | None
    fit_backward_passes: float | None
    fit_seconds: float | None
    craft_key: str

    @property
    def setting(self) -> Setting:
        return Setting.of_row(self)


@dataclass(frozen=True)
class Results:
    """Input of all reports.

    Attributes:
        record: record of the run.
        cells: one row per (attack, threat model, seed, source, target, data set).
        clean: one row per (victim, data set).
        per_query: rank_key → per-query outcome, for cells and clean rows with status "ok".
        sheets: example images.
        retrieved: rank_key → images retrieved for the queries of the cell's sheet, for cells with a sheet.
        galleries: data set → gallery, uint8 RGB N×H×W×3, for the data sets in `retrieved`.
        notes: lines that every report must show (synthetic or withdrawn data, missing LPIPS weights …).
        data: data set → digest of its images.
        costs: one row per (attack, threat model, seed, source, data set) whose adversarial images are stored.
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
    costs: Sequence[CostRow] = ()

    @functools.cached_property
    def settings(self) -> list[Setting]:
        """Attack settings of the run, sorted, including those without a successful cell."""
        return sorted({cell.setting for cell in self.cells})

    @property
    def suite(self) -> str:
        return self.record.suite.name

    @property
    def seed(self) -> int:
        return self.record.suite.seed

    @property
    def headline_epsilon(self) -> int:
        """Epsilon (1/255) of the worst case that orders the leaderboard."""
        return self.record.suite.headline_epsilon

    @property
    def relations(self) -> tuple[str, ...]:
        """Relations of the suite, white-box by default."""
        return self.record.suite.relations or ("white-box",)
