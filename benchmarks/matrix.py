"""A matrix of 500 cells: number of operations, and duration of a second run with no work left.

Eight of its ten victims have almost no cost, two are networks of torchreid. The images of a craft are large enough to
be read once and then identified by their fingerprint (store.LARGE).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.side_by_side import RUNS, Line, line

WHAT = "matrix"
BUDGETS = (2, 4, 6, 8, 10)
COUNTS = {"train_identities": 8, "test_identities": 48, "images_per_camera": 1, "queries_per_identity": 2}
OVERHEAD = [sys.executable, "-c", "import torch"]


def measure() -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "many.yaml").write_text(yaml.safe_dump(_suite()), encoding="utf-8")
        command = [sys.executable, "-m", "reid_attack_bench", "run", "many.yaml"]
        first, _ = _timed(command, folder)
        yield from _counts(json.loads((folder / "runs/many/manifest.json").read_text(encoding="utf-8")))
        yield line(WHAT, "first run of 500 cells", "none", [first], "s")
        second, imports = [], []
        for _ in range(RUNS):
            second.append(_timed(command, folder))
            imports.append(_timed(OVERHEAD, folder))
        seconds = "second run of 500 cells"
        yield line(WHAT, seconds, "the clock", [wall for wall, _ in second], "s", "< 3", lambda s: s < 3)
        yield line(WHAT, f"{seconds}, processor time", "none", [work for _, work in second], "s")
        ratios = [ours[1] / theirs[1] for ours, theirs in zip(second, imports, strict=True)]
        yield line(WHAT, f"{seconds}, processor time", "importing torch only", ratios, "× the time")
        said = subprocess.run(
            [*command, "--json"], cwd=folder, check=True, capture_output=True, text=True, encoding="utf-8"
        ).stdout
        yield _count("steps of a second run", json.loads(said.splitlines()[0])["to_do"], 0)


def _suite() -> dict[str, Any]:
    small = Path(__file__).with_name("small_victim.py").resolve()
    victims: dict[str, Any] = {
        f"small{seed}": {"use": f"{small}:Small", "options": {"seed": seed}} for seed in range(8)
    }
    for arch in ("shufflenet_v2_x0_5", "osnet_x0_25"):
        options = {"arch": arch, "input_size": [64, 32], "epochs": 1}
        victims[arch] = {"use": "torchreid", "train_on": ["plaza"], "options": options}
    return {
        "name": "many", "image_size": [64, 32], "batch_size": 32, "headline_epsilon": 8,
        "datasets": {"plaza": COUNTS},
        "victims": victims,
        "attacks": {"metric_fgsm": {"epsilon": list(BUDGETS)}},
    }  # fmt: skip


def _timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall-clock and processor seconds of a command."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _counts(manifest: dict[str, Any]) -> Iterator[Line]:
    """Steps of the first run: A attacks, S sources, T targets, one data set."""
    done = Counter(step["kind"] for step in manifest["steps"] if step["done_in_this_run"])
    attacks, sources, targets = len(BUDGETS), 10, 10
    for kind, what, expected in (
        ("data", "decodes of a data set", 1),
        ("craft", "crafts, A·S", attacks * sources),
        ("features", "passes of a craft through a target, A·S·T", attacks * sources * targets),
        ("measure", "measures of a craft, A·S", attacks * sources),
        ("rank", "rankings, A·S·T", attacks * sources * targets),
    ):
        yield _count(what, done[kind], expected)


def _count(what: str, found: int, expected: int) -> Line:
    return line(WHAT, what, str(expected), [found], "calls", f"= {expected}", lambda count: count == expected)
