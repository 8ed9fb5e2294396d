"""The record of a run, manifest.json: suite, machine, and keys of the artefacts."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.errors import BenchError
from reid_attack_bench.suites.suite import Suite
from reid_attack_bench.validation import checked, parse_json

MANIFEST = "manifest.json"

REPORT_VERSION = 10
"""Increase when equal results give a different report; the reports of finished runs are then written again."""


@dataclass(frozen=True)
class Machine:
    """Machine of a run: CPU cores, torch threads, and the name of the GPU if one was used."""

    system: str
    processor: str
    cores: int | None
    threads: int
    gpu: str | None = None


@dataclass(frozen=True)
class StepRecord:
    """A step. inputs: role → key; seconds: duration, None if it is not stored yet."""

    kind: str
    label: str
    key: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None
    done_in_this_run: bool = False


@dataclass(frozen=True)
class CleanRecord:
    """A victim on a data set without attack, see plan.CleanRow."""

    victim: str
    dataset: str
    synthetic: bool
    home: bool
    victim_key: str
    features_key: str
    rank_key: str
    check_key: str = ""
    withdrawn: bool = False
    figure_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class CellRecord:
    """A cell of the matrix, see plan.Cell. seed None: the seed of the suite."""

    attack: str
    threat: ThreatModel
    access: str
    needs: tuple[str, ...]
    source: str
    target: str
    dataset: str
    synthetic: bool
    clean_rank_key: str
    data_key: str
    seed: int | None = None
    relation: str = ""
    family: str = ""
    steps: int = 0
    adaptive: int = 0
    protocol: str = ""
    fitted_on: str = ""
    craft_key: str = ""
    measure_key: str = ""
    features_key: str = ""
    rank_key: str = ""
    impossible: str = ""
    withdrawn: bool = False


@dataclass(frozen=True)
class DataRecord:
    """A data set, see data.source.DataSource. layout: its reader; empty for a rendered domain."""

    name: str
    title: str = ""
    layout: str = ""
    synthetic: bool = False
    withdrawn: str = ""
    genuine: bool = True
    counts: Mapping[str, int] = field(default_factory=dict)


def threat_columns(threat: ThreatModel) -> dict[str, Any]:
    """Columns of tables for a threat model, without the evaluated targets; None and "" where they do not apply."""
    return {
        "epsilon": threat.epsilon,
        "pixels": threat.pixels,
        "perturbs": threat.perturbs,
        "sees": threat.sees,
        "query_budget": threat.queries,
        "top": threat.top if threat.sees == "ranking" else None,
        "impersonate": threat.impersonate or "",
    }


@dataclass(frozen=True)
class RunRecord:
    """A run.

    Attributes:
        suite: the suite that was run.
        bench, report_version, versions: versions of the bench, its reports, and its dependencies.
        command: command line of the run.
        finished: False while running and after an interruption.
        date: date of the record, ISO 8601 in UTC.
        store: absolute path of the store; empty in a submission.
        device: torch device.
        notes: lines that every report must show.
        failures: key → reason, for failed steps and the steps that depend on them.
        rebuilt: labels of corrupt artefacts that were recomputed.
        clean, cells, steps: planned rows of the tables, and all steps.
        datasets: data sets of the plan; empty in records of earlier versions.
        files: paths of the report relative to the run folder; empty before it is written.
    """

    suite: Suite
    bench: str = ""
    report_version: int = 0
    command: str = ""
    finished: bool = True
    date: str = ""
    store: str = ""
    device: str = ""
    machine: Machine | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    rebuilt: tuple[str, ...] = ()
    clean: tuple[CleanRecord, ...] = ()
    cells: tuple[CellRecord, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    files: tuple[str, ...] = ()
    datasets: tuple[DataRecord, ...] = ()

    def is_genuine(self, dataset: str) -> bool:
        """False for a data set that goes by the name of a published one, but has other numbers of images."""
        return all(each.genuine for each in self.datasets if each.name == dataset)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"


@dataclass(frozen=True)
class Model:
    """Label of a victim, its training data set (empty if pretrained), and the label of its undefended baseline."""

    label: str
    trained_on: str = ""
    defends: str = ""

    @property
    def name(self) -> str:
        """Name in tables, "label@dataset"."""
        return f"{self.label}@{self.trained_on}" if self.trained_on else self.label

    @property
    def undefended(self) -> Model | None:
        """The undefended baseline, None for a model without defence."""
        return Model(self.defends, self.trained_on) if self.defends else None


def models(suite: Suite) -> dict[str, Model]:
    """Models of a suite by name in tables."""
    made: dict[str, list[Model]] = {}
    for entry in suite.victims:
        if entry.defends:
            below = made.get(entry.defends, [])
            made[entry.label] = [Model(entry.label, each.trained_on, entry.defends) for each in below]
        else:
            made[entry.label] = [Model(entry.label, name) for name in entry.train_on or ("",)]
    return {model.name: model for each in made.values() for model in each}


def read_record(folder: Path) -> RunRecord:
    """Read the record of a run in `folder`, finished or not. Records of earlier versions lack some fields.

    Raises:
        BenchError: the folder has no record, or it cannot be read.
    """
    path = folder / MANIFEST
    try:
        return parse_record(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise BenchError(f"{folder} is not a run: it has no {MANIFEST}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} cannot be read ({error}); run the suite again") from error


def parse_record(text: str, where: str) -> RunRecord:
    """Parse a record from JSON; `where` names it in messages.

    Raises:
        BenchError: `text` is not the record of a run.
    """
    try:
        content = parse_json(text, where)
    except BenchError as error:
        raise BenchError(f"{error}; run the suite again") from error
    try:
        return checked(RunRecord, content, where, noun="field")
    except BenchError as error:
        raise BenchError(f"{where} is not the manifest of a run: {error}; run the suite again") from error


@contextlib.contextmanager
def reading(where: Path | str) -> Iterator[None]:
    """Context in which values of a file are taken for granted: where they are not there, `where` is damaged.

    Raises:
        BenchError: in place of what a missing, misspelt or mistyped value raises.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, csv.Error) as error:
        words = " ".join(str(error).split())[:200]
        raise BenchError(f"{where} is damaged: {type(error).__name__}: {words}") from error
    except FileNotFoundError as error:
        raise BenchError(f"{where} lacks {error.filename}") from error
