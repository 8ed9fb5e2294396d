"""A run that is killed at random moments, again and again, ends with the bytes of one that was left alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from reid_attack_bench.report.record import read_record
from reid_attack_bench.store import Store
from tests.conftest import tiny_document

KILLS = 20

# Children of one process that has everything imported: each is killed with all its workers after a random time, in
# which at least one of the steps that are left may end.
_KILLING = """\
import os, random, signal, sys, time
from pathlib import Path
from reid_attack_bench.cli.main import main
from reid_attack_bench.execute.device import stop_threads
import reid_attack_bench.execute.executor, reid_attack_bench.jobs.run, reid_attack_bench.report.write

def begin(folder, workers):
    stop_threads()
    child = os.fork()
    if child == 0:
        os.setsid()
        sys.argv = ["reid-attack-bench", "run", "tiny.yaml", "--workers", workers]
        sys.argv += ["--store", f"{folder}/store", "--out", f"{folder}/out"]
        status = 1
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    return child

begun = time.monotonic()
_, status = os.waitpid(begin("alone", "2"), 0)
whole = time.monotonic() - begun
assert status == 0, status
draw = random.Random(int(sys.argv[1]))
killed = 0
while killed < int(sys.argv[2]):
    child = begin("killed", draw.choice("12"))
    time.sleep(draw.uniform(0, whole / 2))
    if os.waitpid(child, os.WNOHANG)[0]:
        break  # it was through before
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    killed += 1
_, status = os.waitpid(begin("killed", "2"), 0)
assert status == 0, status
print("killed", killed)
"""


@pytest.mark.slow
def test_a_run_killed_at_random_again_and_again_ends_with_the_same_bytes(tmp_path: Path) -> None:
    document = tiny_document()
    del document["datasets"]["station"]
    document["victims"]["toy"] |= {"train_on": ["plaza"], "options": {"steps": 60}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    killed = 0
    for seed in range(10):  # a run that came through is followed by another
        command = [sys.executable, "-c", _KILLING, str(seed), str(KILLS - killed)]
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / "tiny.yaml").write_bytes((tmp_path / "tiny.yaml").read_bytes())
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        killed += int(done.stdout.split()[-1])
        _check_same(folder)
        if killed >= KILLS:
            break
    assert killed >= KILLS


def _check_same(folder: Path) -> None:
    for name in ("leaderboard.csv", "matrix.csv", "clean.csv", "mdr.csv"):
        assert (folder / "killed/out" / name).read_bytes() == (folder / "alone/out" / name).read_bytes(), name
    alone, killed = Store(folder / "alone/store"), Store(folder / "killed/store")
    for step in read_record(folder / "alone/out").steps:
        assert killed.manifest(step.kind, step.key)["files"] == alone.manifest(step.kind, step.key)["files"]
    left = [path for name in ("pending", "claims", "unfinished") for path in (killed.root / name).glob("*")]
    assert not left
    assert json.loads((folder / "killed/out/manifest.json").read_text(encoding="utf-8"))["finished"]
