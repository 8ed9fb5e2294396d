"""Make, read and write the record of a run, manifest.json."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from reid_attack_bench import __version__
from reid_attack_bench.data import catalogue as datasets
from reid_attack_bench.data.source import DataSource
from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute.device import Devices, each_of
from reid_attack_bench.execute.events import Outcome
from reid_attack_bench.execute.executor import seconds_stored
from reid_attack_bench.files import replace_file
from reid_attack_bench.metrics.lpips import find_lpips_weights, lpips_missing_message
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.report.record import (
    MANIFEST,
    REPORT_VERSION,
    CellRecord,
    CleanRecord,
    DataRecord,
    Machine,
    RunRecord,
    StepRecord,
    read_record,
)
from reid_attack_bench.steps.data import source_of
from reid_attack_bench.steps.victim import training_data_of
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse
from reid_attack_bench.text import visible

_PACKAGES = (
    "torch",
    "torchvision",
    "torchreid",
    "numpy",
    "opencv-python-headless",
    "pytorch-msssim",
    "lpips",
    "safetensors",
)


def describe(
    plan: Plan, store: Store, outcome: Outcome, device: Devices, command: str, *, finished: bool = True
) -> RunRecord:
    """The record of a run on one or several devices. Before its first step, a run writes one with `finished` False."""
    devices = each_of(device)
    seconds, rows = seconds_stored(plan, store), rows_of(plan)
    return RunRecord(
        suite=plan.suite,
        bench=__version__,
        report_version=REPORT_VERSION,
        command=visible(command),  # JSON that is read back holds no names that are not UTF-8
        finished=finished,
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        store=visible(store.address),
        device=", ".join(map(str, devices)),
        machine=machine(devices, outcome.threads),
        versions=versions(),
        notes=tuple(map(visible, notes(plan, outcome))),
        failures={key: visible(reason) for key, reason in outcome.failed.items()},
        rebuilt=tuple(map(visible, outcome.rebuilt)),
        clean=rows["clean"],
        cells=rows["cells"],
        steps=tuple(
            replace(step, seconds=seconds.get(step.key), done_in_this_run=step.key in outcome.seconds)
            for step in rows["steps"]
        ),
        datasets=rows["datasets"],
    )


def rows_of(plan: Plan) -> dict[str, tuple[Any, ...]]:
    """What a record says of a plan, by field: clean, cells, steps (without their times) and datasets."""
    return {
        "clean": tuple(CleanRecord(**vars(row)) for row in plan.clean),
        "cells": tuple(CellRecord(**vars(cell)) for cell in plan.cells),
        "steps": tuple(StepRecord(step.kind, step.label, key, dict(step.inputs)) for key, step in plan.steps.items()),
        "datasets": tuple(
            DataRecord(
                source.name,
                source.title,
                str(source.identity.get("reader", "")),
                source.synthetic,
                source.withdrawn,
                source.genuine,
                dict(source.counts),
            )
            for source in sources(plan)
        ),
    }


def sources(plan: Plan) -> list[DataSource]:
    """Data sets of a plan."""
    return [source_of(step) for step in plan.steps.values() if step.kind == "data"]


def notes(plan: Plan, outcome: Outcome) -> list[str]:
    """Notes shown in every report of this run."""
    lines = []
    synthetic = sorted({row.dataset for row in plan.clean if row.synthetic})
    if synthetic:
        lines.append(
            f"Synthetic data ({', '.join(synthetic)}): rendered, not photographed. The values compare models and "
            "attacks with each other and say nothing about real pedestrians."
        )
    lines += [*plan.notes, *_withdrawn(plan), *_fitted_elsewhere(plan)]
    if plan.suite.precision != "float32":
        lines.append(f"Victims were attacked and evaluated in {plan.suite.precision}, not in float32.")
    if find_lpips_weights() is None:
        lines.append(lpips_missing_message())
    lines += [f"Failed: {cause}" for cause in outcome.causes]
    return lines


def _withdrawn(plan: Plan) -> list[str]:
    """A note for each data set that its authors have withdrawn, and for each such set that victims were trained on."""
    reasons = {source.name: source.withdrawn for source in sources(plan)}
    lines = [f"Withdrawn data ({name}): {reason}." for name, reason in reasons.items() if reason]
    trained: dict[str, list[str]] = {}
    for step in plan.steps.values():
        for name in training_data_of(step) if step.kind == "victim" else ():
            if reasons.get(name, datasets.withdrawn(name)):
                trained.setdefault(name, []).append(step.about)
    return lines + [
        f"Trained on withdrawn data ({name}): {', '.join(dict.fromkeys(victims))}." for name, victims in trained.items()
    ]


def _fitted_elsewhere(plan: Plan) -> list[str]:
    """A note for each learned attack that is evaluated on another data set than it was fitted on."""
    counts = Counter(
        (cell.attack, cell.fitted_on) for cell in plan.cells if cell.fitted_on and cell.fitted_on != cell.dataset
    )
    return [
        f"{attack} was fitted on {fitted_on}; {count} of its cells are on other data sets (column fitted_on)."
        for (attack, fitted_on), count in counts.items()
    ]


def machine(devices: Sequence[torch.device], threads: int) -> Machine:
    names = [torch.cuda.get_device_name(device) for device in devices if device.type == "cuda"]
    gpu = ", ".join(names) or None
    processor = platform.processor() or platform.machine()
    return Machine(platform.platform(), processor, os.cpu_count(), threads, gpu)


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def read(run_dir: Path) -> RunRecord | None:
    """The record in a folder; None if it is missing or unreadable."""
    try:
        return read_record(run_dir)
    except BenchError:
        return None


def is_reported(record: RunRecord, earlier: RunRecord | None, run_dir: Path) -> bool:
    """Whether `run_dir`, whose record is `earlier`, holds the report of a run with the same results."""
    if earlier is None or not earlier.files:
        return False
    shown = ("report_version", "notes", "failures", "clean", "cells", "datasets")
    if any(getattr(earlier, name) != getattr(record, name) for name in shown):
        return False
    # as JSON: settings from Python may be tuples, those from a file are lists
    if parse.to_json(earlier.suite) != parse.to_json(record.suite):
        return False
    return all((run_dir / name).is_file() for name in earlier.files)


def write(record: RunRecord, run_dir: Path) -> Path:
    return replace_file(run_dir / MANIFEST, record.to_json().encode())
