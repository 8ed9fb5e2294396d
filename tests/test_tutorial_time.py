"""The promise of the tutorial: ten minutes from a checkout to a row of a table, in a new environment."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.test_docs import blocks, read, section

ROOT = Path(__file__).parents[1]

MINUTES = 10


def commands() -> Iterator[str]:
    """What docs/start.md tells to type, without make: installation, then the first look."""
    page = read("start.md")
    first_look = section(page, "A first look")
    installing = next(block for block in blocks(page) if "pip install" in block.text)
    for block in (installing, *blocks(first_look)):
        yield from filter(None, (line.partition("  #")[0].strip() for line in block.text.splitlines()))


def test_the_page_installs_makes_a_model_checks_it_and_attacks_it() -> None:
    words = [shlex.split(command) for command in commands()]
    assert [each[-3:] for each in words[:3]] == [
        ["-m", "venv", ".venv"],
        ["install", "-e", "."],
        [".", ".venv/bin/activate"],
    ]
    assert [each[1] for each in words[3:]] == ["new-victim", "check-victim", "evaluate"]


@pytest.mark.slow
def test_from_pip_install_to_a_row_in_ten_minutes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wall clock, with what pip downloads; a machine that is busy with other work is slower."""
    left_out = shutil.ignore_patterns(".*", "runs", "build", "site", "results", "*.egg-info", "__pycache__")
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT, checkout, ignore=left_out)
    noted = [f"{command}\necho $EPOCHREALTIME {shlex.quote(command)} >> times.txt" for command in commands()]
    # as a new terminal would be: nothing of the environment that runs the tests
    own = Path(os.environ.get("VIRTUAL_ENV", ROOT / ".venv")) / "bin"
    path = os.pathsep.join(each for each in os.environ["PATH"].split(os.pathsep) if Path(each) != own)
    gone = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
    environment = {name: value for name, value in os.environ.items() if name not in gone} | {"PATH": path}
    started = time.time()
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(noted)], cwd=checkout, env=environment, capture_output=True, text=True,
        check=False, timeout=3 * MINUTES * 60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (row,) = pd.read_csv(checkout / "runs/minute+MyModel/leaderboard.csv").to_dict("records")
    assert row["victim"] == "MyModel"
    assert row["worst_e8_mAP"] < row["clean_mAP"]
    before = started
    with capsys.disabled():
        for line in (checkout / "times.txt").read_text().splitlines():
            at, _, command = line.partition(" ")
            print(f"\n{float(at) - before:7.1f} s  {command}", end="")
            before = float(at)
        print(f"\n{before - started:7.1f} s  in all")
    assert before - started < MINUTES * 60
