"""Read the results of a run from its record and the store. No model is run."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from reid_attack_bench.checks.result import CheckResult, not_checked
from reid_attack_bench.files import digest_of
from reid_attack_bench.metrics import catalogue
from reid_attack_bench.metrics.evasion import relative_drop, success_rates
from reid_attack_bench.metrics.verification import true_positive_rates
from reid_attack_bench.report import costs, retrieval
from reid_attack_bench.report.record import CellRecord, CleanRecord, RunRecord, threat_columns
from reid_attack_bench.report.results import (
    NOT_APPLICABLE,
    CellRow,
    CleanRow,
    PerQuery,
    Results,
    Setting,
    Sheet,
)
from reid_attack_bench.steps.artefacts import read_crafted, read_outcome, read_pairs, read_splits
from reid_attack_bench.store import Store

_SHEET_QUERIES = 6

_EVASION = ("success1", "success1_low", "success1_high", "success10")

_FORMER_NAMES = {"pixels_changed": "pixels"}  # in stores of earlier versions


def _clean_and_attacked() -> list[str]:
    return [measure.name for measure in catalogue.clean_and_attacked()]


def _known(measured: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in measured.items() if value is not None}


def _cell_values(
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    visible: Mapping[str, Any] | None,
    cost: Mapping[str, float],
) -> dict[str, float]:
    """Column → value, from the stored facts of clean-rank, rank, measure and craft steps.

    Facts of earlier versions lack some measures.
    """
    found: dict[str, Any] = {}
    names = _clean_and_attacked()
    if before is not None:
        found |= {f"clean_{name}": before.get(name) for name in names}
    if before is not None and after is not None:
        found |= {name: after.get(name) for name in (*names, *catalogue.interval_columns())}
        found |= {measure.name: after.get(measure.name) for measure in catalogue.of_group("detection")}
        both = [name for name in names if before.get(name) is not None and after.get(name) is not None]
        found |= {f"drop_{name}": before[name] - after[name] for name in both}
        found |= {f"relative_drop_{name}": relative_drop(before[name], after[name]) for name in ("rank1", "mAP")}
        found |= {name: after.get(name) for name in _EVASION}
        found |= {name: after.get(name) for name in catalogue.targeted_columns()}
    if after is not None and visible is not None:
        names = [measure.name for measure in catalogue.of_group("visibility")]
        found |= {name: visible.get(name, visible.get(_FORMER_NAMES.get(name, ""))) for name in names}
    if after is not None:
        found |= cost
    return _known(found)


def collect(record: RunRecord, store: Store) -> Results:
    """Read all values that `record` refers to.

    A cell whose step failed or is not in the store has no values; its status gives the reason.

    Raises:
        CorruptArtefact: a stored file does not match its digest.
    """
    return _Collector(record, store).results()


_CELL_FIELDS = (
    "attack", "access", "source", "target", "dataset", "synthetic", "withdrawn", "needs", "relation", "family", "steps",
    "adaptive", "protocol", "fitted_on",
    "craft_key", "features_key", "rank_key",
)  # fmt: skip


class _Collector:
    def __init__(self, record: RunRecord, store: Store) -> None:
        self.record, self.store = record, store
        self.failures = record.failures
        self.per_query: dict[str, PerQuery] = {}
        self.outdated = False
        self.facts: dict[str, dict[str, Any]] = {}
        self.facts_of = functools.cache(self.unchecked)
        self.thresholds = functools.cache(lambda key: read_pairs(store.folder("clean-rank", key), "thresholds"))

    def results(self) -> Results:
        self.success = self.success_rates()
        cells = [self.cell(cell) for cell in self.record.cells]
        notes = list(self.record.notes)
        if not self.record.finished:
            notes.append(
                f"Not finished: {sum(cell.ok for cell in cells)} of {len(cells)} cells have values. The run was "
                "interrupted or is still running; run the same command to resume."
            )
        clean = [self.clean(row) for row in self.record.clean]
        if self.outdated:
            notes.append(
                "Rankings of an earlier version: intervals resample queries, not identities, and a query that a "
                "detector rejected counts as its clean version. Run the same command again to rank anew."
            )
        sheets = self.sheets()
        retrieved, galleries = retrieval.find(self.record, self.store, sheets, self.per_query)
        return Results(
            record=self.record,
            cells=cells,
            clean=clean,
            per_query=self.per_query,
            sheets=sheets,
            retrieved=retrieved,
            galleries=galleries,
            notes=notes,
            data=self.data(),
            costs=costs.of_run(self.record, self.facts_of),
        )

    def clean(self, row: CleanRecord) -> CleanRow:
        card = self.read("victim", row.victim_key) or {}
        facts = self.ranking("clean-rank", row.rank_key)
        measured = {"zero_gradient": card.get("zero_gradient")}
        if facts is not None:
            measured |= {name: facts.get(name) for name in (*_clean_and_attacked(), *catalogue.interval_columns())}
        return CleanRow(
            victim=row.victim,
            dataset=row.dataset,
            synthetic=row.synthetic,
            withdrawn=row.withdrawn,
            home=row.home,
            **{name: card.get(name, "") for name in ("defence", "distance", "citation", "weights", "detector")},
            randomised=bool(card.get("randomised") or card.get("found_randomised")),
            queries=None if facts is None else facts["queries"],
            status=self.clean_status(row, facts),
            values=_known(measured),
            features_key=row.features_key,
            rank_key=row.rank_key,
            checks=self.checks(row.check_key),
        )

    def clean_status(self, row: CleanRecord, facts: Mapping[str, Any] | None) -> str:
        """As `status`; also of a victim that was ranked, but does not reach its published values."""
        found = [self.status(key, self.unchecked("reproduce", key)) for key in row.figure_keys]
        return next((each for each in [self.status(row.rank_key, facts), *found] if each != "ok"), "ok")

    def checks(self, key: str) -> tuple[CheckResult, ...]:
        """Notes and faults of the checks of a victim."""
        facts = self.unchecked("check", key)
        if facts is None:
            return (not_checked(self.status(key, None) if key else "run by a version without these checks"),)
        found = (CheckResult(**result) for result in facts["results"])
        return tuple(result for result in found if result.level != "ok")

    def cell(self, cell: CellRecord) -> CellRow:
        before = self.ranking("clean-rank", cell.clean_rank_key)
        after = self.ranking("rank", cell.rank_key) if cell.rank_key else None
        if before is not None and after is not None:
            after = {**after, **self.beside_clean(cell)}
        visible = self.read("measure", cell.measure_key) if cell.measure_key else None
        impossible = NOT_APPLICABLE + cell.impossible if cell.impossible else ""
        return CellRow(
            **{name: getattr(cell, name) for name in _CELL_FIELDS},
            **threat_columns(cell.threat),
            queries=None if before is None or after is None else after["queries"],
            seed=self.record.suite.seed if cell.seed is None else cell.seed,
            status=impossible or self.status(cell.rank_key, after),
            values=_cell_values(before, after, visible, costs.of_crafting(cell, self.facts_of)),
        )

    def beside_clean(self, cell: CellRecord) -> dict[str, float | None]:
        """Measures of two rankings: that of a cell, and the clean one of its target."""
        found = self.success.get((cell.clean_rank_key, cell.rank_key), {})
        genuine = read_pairs(self.store.folder("rank", cell.rank_key), "genuine")
        thresholds = self.thresholds(cell.clean_rank_key)
        if genuine is None or thresholds is None:
            return found
        return found | true_positive_rates(genuine, thresholds)

    def success_rates(self) -> dict[tuple[str, str], dict[str, float | None]]:
        """Clean ranking and ranking → success rates; those of one clean ranking from the same resamples."""
        groups: dict[str, dict[str, None]] = {}
        for cell in self.record.cells:
            if cell.rank_key and None not in (
                self.ranking("clean-rank", cell.clean_rank_key),
                self.ranking("rank", cell.rank_key),
            ):
                groups.setdefault(cell.clean_rank_key, {})[cell.rank_key] = None
        found: dict[tuple[str, str], dict[str, float | None]] = {}
        for clean_key, keys in groups.items():
            before = self.per_query[clean_key]
            known = [key for key in keys if len(self.per_query[key].hit10) == len(before.valid) == len(before.hit10)]
            clean, *attacked = (_hits(self.per_query[key], before.valid) for key in (clean_key, *known))
            rates = success_rates(clean, attacked, before.identities[before.valid]) if known else []
            found |= {(clean_key, key): each for key, each in zip(known, rates, strict=True)}
        return found

    def status(self, key: str, facts: Mapping[str, Any] | None) -> str:
        if facts is not None:
            return "ok"
        return self.failures.get(key, "not in the store: run the suite again")

    def read(self, kind: str, key: str) -> dict[str, Any] | None:
        """Facts of a stored step, after checking its files; None if it is not stored."""
        if key not in self.facts:
            if key in self.failures or not self.store.occupied(kind, key):
                return None
            if kind != "victim":  # a report does not read the weights of victims
                self.store.open(kind, key)
            self.facts[key] = dict(self.store.manifest(kind, key)["facts"])
        return self.facts[key]

    def unchecked(self, kind: str, key: str) -> dict[str, Any] | None:
        """What a stored step says of itself, without reading its files; None where it is not stored."""
        if not key or key in self.failures or not self.store.occupied(kind, key):
            return None
        return dict(self.store.manifest(kind, key)["facts"])

    def ranking(self, kind: str, key: str) -> dict[str, Any] | None:
        facts = self.read(kind, key)
        if facts is not None and key not in self.per_query:
            found = read_outcome(self.store.folder(kind, key))
            self.per_query[key] = PerQuery(**found)
            self.outdated = self.outdated or "identities" not in found
        return facts

    def data(self) -> dict[str, str]:
        found = {}
        for step in self.record.steps:
            if step.kind == "data" and self.store.occupied("data", step.key):
                config = dict(self.store.manifest("data", step.key)["config"])
                if "content" in config:  # the queries are the same at any size, unless they are rendered
                    config.pop("size", None)
                found[str(config["name"])] = digest_of(config)
        return found

    def sheets(self) -> list[Sheet]:
        trained_on = {(row.victim, row.dataset) for row in self.record.clean if row.home}
        made: dict[tuple[str, str, str], Sheet] = {}
        shown: set[tuple[Any, ...]] = set()  # one seed of an attack is enough
        for cell in self.record.cells:
            key, on_training_data = cell.craft_key, (cell.source, cell.dataset) in trained_on
            place = (key, cell.source, cell.dataset)
            if (
                not key
                or not on_training_data
                or place in made
                or key in self.failures
                or not self.store.occupied("craft", key)
            ):
                continue
            same = (cell.attack, cell.threat, cell.source, cell.dataset)
            if same in shown:
                continue
            crafted = read_crafted(self.store.open("craft", key)).get("query")
            if crafted is None or not self.store.occupied("data", cell.data_key):
                continue
            clean = read_splits(self.store.open("data", cell.data_key))["query"].images
            chosen = np.unique(np.linspace(0, len(clean) - 1, _SHEET_QUERIES).astype(int))
            shown.add(same)
            made[place] = Sheet(
                Setting.of(cell.attack, cell.threat),
                cell.source,
                cell.dataset,
                clean[chosen],
                crafted[chosen],
                chosen,
                key,
            )
        return list(made.values())


def _hits(outcome: PerQuery, valid: np.ndarray) -> dict[int, np.ndarray]:
    """k → hits of the valid queries; none for an outcome of a version that did not store those at 10."""
    return {1: outcome.hit[valid], 10: outcome.hit10[valid]} if len(outcome.hit10) else {}
