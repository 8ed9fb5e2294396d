"""The assignment of a worker, and its form as text, in which it reaches another process or another machine."""

from __future__ import annotations

import importlib.metadata
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import expanded
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.plugin_file import code_of, home_of, modules_beside
from reid_attack_bench.store import Store, open_store
from reid_attack_bench.suites.parse import from_json, to_json

PACKAGES = ("reid-attack-bench", "torch")
"""Packages that must have one version on all machines of a run."""

_PLUGINS = {"use", "layout"}
"""Fields of a suite that name a plug-in."""


@dataclass(frozen=True)
class Assignment:
    """Steps of one run, and how a worker is to run them.

    Attributes:
        plan: plan of the run.
        store: store of the results.
        device: compute device of this worker.
        threads: number of threads of torch and OpenCV.
        memory_limit: bytes that a worker may use, see `execute.memory`; None for no limit.
    """

    plan: Plan
    store: Store
    device: torch.device
    threads: int
    memory_limit: int | None = None


def as_text(assignment: Assignment) -> str:
    """JSON of an assignment whose plan has a source. Plug-in files are part of it."""
    source = assignment.plan.source
    assert source is not None
    suite = to_json(assignment.plan.suite)
    values: dict[str, Any] = {
        "versions": versions(),
        "suite": suite,
        "files": {name: _shipped(path) for name, path in _files_of(suite).items()},
        "data_root": source.data_root and os.path.abspath(source.data_root),
        "only": {field: list(values) for field, values in source.only.items()},
        "remember": source.remember and os.path.abspath(source.remember),
        "store": assignment.store.address,
        "device": str(assignment.device),
        "threads": assignment.threads,
        "memory_limit": assignment.memory_limit,
    }
    return json.dumps(values)


def from_text(text: str) -> Assignment:
    """Plan again what `as_text` wrote.

    Raises:
        BenchError: another version of a package here; a plug-in file that has another content here; or the suite cannot
            be planned.
    """
    values = json.loads(text)
    here = versions()
    other = [f"{name} {here[name]}, not {there}" for name, there in values["versions"].items() if here[name] != there]
    if other:
        raise BenchError(f"it has {' and '.join(other)}: install the versions of the machine that runs the command")
    placed = _placed(values["files"])
    suite = json.dumps(_with_files(json.loads(values["suite"]), lambda name: placed.get(name, name)))
    data_root, remember = (Path(values[name]) if values[name] else None for name in ("data_root", "remember"))
    plan = make_plan(from_json(suite), data_root=data_root, only=values["only"], remember=remember)
    return Assignment(
        plan, open_store(values["store"]), torch.device(values["device"]), values["threads"], values["memory_limit"]
    )


def versions() -> dict[str, str]:
    """Versions of `PACKAGES`."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def _files_of(suite: str) -> dict[str, Path]:
    """FILE.py as the suite names it → path. One that was removed meanwhile is left out: planning says so."""
    names: dict[str, None] = {}
    _with_files(json.loads(suite), lambda name: str(names.setdefault(name)))
    paths = {name: expanded(name) for name in names}
    return {name: path for name, path in paths.items() if path.is_file()}


def _with_files(value: Any, change: Callable[[str], str]) -> Any:
    """Plain values of a suite, with `change` applied to FILE.py of every plug-in FILE.py:NAME."""
    if isinstance(value, list):
        return [_with_files(each, change) for each in value]
    if not isinstance(value, Mapping):
        return value
    found = {name: _with_files(each, change) for name, each in value.items()}
    for role in _PLUGINS & found.keys():
        path, _, name = str(found[role]).rpartition(":")
        if path.endswith(".py"):
            found[role] = f"{change(path)}:{name}"
    return found


def _shipped(path: Path) -> dict[str, Any]:
    """A plug-in file and the modules beside it, by content."""
    parts = [path.resolve(), *modules_beside(path)]
    home = home_of(path)
    return {
        "code": code_of(path),
        "file": str(parts[0].relative_to(home)),
        "parts": {str(part.relative_to(home)): part.read_text(encoding="utf-8") for part in parts},
    }


def _placed(files: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Path → path on this machine, of files that are missing here and were written to a temporary folder.

    Raises:
        BenchError: a file differs from what was sent.
    """
    moved = {}
    for name, sent in files.items():
        path = expanded(name)
        if not path.is_file():
            folder = Path(tempfile.mkdtemp(prefix="reid-attack-bench-"))  # a name that nobody else can take
            for part, content in sent["parts"].items():
                (folder / part).parent.mkdir(parents=True, exist_ok=True)
                (folder / part).write_text(content, encoding="utf-8")
            path = folder / sent["file"]
            moved[name] = str(path)
        if code_of(path) != sent["code"]:
            raise BenchError(
                f"{path}, or a module beside it, differs from that on the machine that runs the command: copy it again"
            )
    return moved
