"""manifest.json: what a run was, on what, with which versions, and which artefacts hold its figures."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from reid_attack_bench import __version__
from reid_attack_bench.execute.events import Outcome
from reid_attack_bench.execute.executor import seconds_stored
from reid_attack_bench.files import replace_file
from reid_attack_bench.metrics.lpips import find_lpips_weights, lpips_missing_message
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.report.results import REPORT_VERSION
from reid_attack_bench.store import Store

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
    plan: Plan, store: Store, outcome: Outcome, device: torch.device, command: str, *, finished: bool = True
) -> dict[str, Any]:
    """The manifest of a run, as plain values; not `finished` is what a run writes before its first step."""
    seconds = seconds_stored(plan, store)
    return {
        "bench": __version__,
        "report_version": REPORT_VERSION,
        "command": command,
        "finished": finished,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "suite": asdict(plan.suite),
        "store": str(store.root.resolve()),
        "device": str(device),
        "machine": machine(device),
        "versions": versions(),
        "notes": notes(plan, outcome),
        "failures": outcome.failed,
        "rebuilt": outcome.rebuilt,
        "clean": [asdict(row) for row in plan.clean],
        "cells": [asdict(cell) for cell in plan.cells],
        "steps": [
            {
                "kind": step.kind,
                "label": step.label,
                "key": key,
                "inputs": dict(step.inputs),
                "seconds": seconds.get(key),
                "done_in_this_run": key in outcome.seconds,
            }
            for key, step in plan.steps.items()
        ],
    }


def notes(plan: Plan, outcome: Outcome) -> list[str]:
    """Lines that every report of this run must carry."""
    lines = []
    synthetic = sorted({row.dataset for row in plan.clean if row.synthetic})
    if synthetic:
        lines.append(
            f"Synthetic data ({', '.join(synthetic)}): rendered, not photographed. These figures compare models and "
            "attacks with each other and say nothing about real pedestrians."
        )
    if plan.suite.precision != "float32":
        lines.append(f"Victims were attacked and judged in {plan.suite.precision}, not in float32.")
    if find_lpips_weights() is None:
        lines.append(lpips_missing_message())
    lines += [f"Failed: {cause}" for cause in outcome.causes]
    return lines


def machine(device: torch.device) -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def read(run_dir: Path) -> dict[str, Any]:
    """The manifest in a folder, empty without one that can be read."""
    try:
        return dict(json.loads((run_dir / "manifest.json").read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def is_reported(manifest: dict[str, Any], earlier: dict[str, Any], run_dir: Path) -> bool:
    """Whether `run_dir`, of which `earlier` is the manifest, holds the report of a run with the same results."""
    told = ("report_version", "suite", "notes", "failures", "clean", "cells")
    same = all(earlier.get(name) == json.loads(json.dumps(manifest[name])) for name in told)
    files = earlier.get("files", [])
    return same and bool(files) and all((run_dir / name).is_file() for name in files)


def write(manifest: dict[str, Any], run_dir: Path) -> Path:
    return replace_file(run_dir / "manifest.json", (json.dumps(manifest, indent=1) + "\n").encode())
