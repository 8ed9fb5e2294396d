"""A large matrix is planned in seconds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import TOY, tiny_document

SCRIPT = """
import json, re, sys, time
from pathlib import Path
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.suites import parse
suite = parse.parse(json.loads(sys.argv[1]))
begun = time.process_time()
plan = make_plan(suite)
seconds = time.process_time() - begun
# getrusage would name the peak of the process that started this one, if it is larger
status = Path("/proc/self/status")
peak = re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text(encoding="utf-8")) if status.exists() else None
print(json.dumps([len(plan.cells), seconds, peak and int(peak[1])]))
"""


@pytest.mark.e2e
def test_20_attacks_on_30_sources_and_30_targets_are_planned_in_5_s_and_1_gib() -> None:
    document = tiny_document()
    recipes = {"use": f"{TOY}:ToyRecipe", "train_on": ["plaza"]}
    document["victims"] = {f"toy{i}": {**recipes, "options": {"seed": i}} for i in range(30)}
    document["attacks"] = {f"pgd{i}": {"use": "pgd", "options": {"steps": i + 1}, "epsilon": [8]} for i in range(20)}
    del document["datasets"]["station"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(document)], check=True, capture_output=True, text=True
    )
    cells, seconds, kib = json.loads(done.stdout)
    assert cells == 20 * 30 * 30
    assert seconds < 5, "1.3 s of processor time on a quiet core"
    assert kib is None or kib < 2**20, "0.6 GiB, of which 0.5 are what is imported"
