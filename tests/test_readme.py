"""The tutorial of the README, run as it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest

import reid_attack_bench

README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.mark.e2e
def test_the_tutorial_of_a_new_victim(tmp_path: Path) -> None:
    chapter = README[README.index("**Plug in a defended model.**") :]
    block = re.search(r"```sh\n(.*?)```", chapter, re.DOTALL)
    assert block
    commands = block[1].strip().splitlines()
    assert len(commands) == 3
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    (row,) = pd.read_csv(tmp_path / "runs/minute+MyDefence/leaderboard.csv").to_dict("records")
    assert row["victim"] == "MyDefence"
    assert row["clean_rank1"] > 10, "simple, but far from the 3 % of chance"
    assert row["worst_e8_mAP"] < row["clean_mAP"]
    assert pd.isna(row["audit"]), "an honest model is not flagged"


@pytest.mark.e2e
def test_the_python_call_in_five_lines(tmp_path: Path, monkeypatch, capsys) -> None:
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert block
    lines = [line for line in block[1].splitlines() if line]
    assert len(lines) == 5
    assert textwrap.indent("\n".join(lines), "    ") in (reid_attack_bench.__doc__ or "")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(block[1], names)
    (row,) = names["result"].leaderboard.to_dict("records")
    assert row["victim"] == "ShuffleNetV2"
    assert capsys.readouterr().out.strip().endswith("report.html")
    assert (tmp_path / "runs/minute+ShuffleNetV2/report.html").is_file()
