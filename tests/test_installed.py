"""Installed from a wheel (not editable), with a second package that plugs in by entry point."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def pip(*arguments: str) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder that holds the bench's wheel and a stranger's package, and nothing of this checkout."""
    folder = tmp_path_factory.mktemp("site")
    stranger = tmp_path_factory.mktemp("stranger")
    (stranger / "stranger.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\n"
        "class Shift:\n"
        "    '''Brightens.'''\n"
        "    by: int = 3\n"
        "    needs = frozenset()\n"
        "    def craft(self, source, batch, threat, generator):\n"
        "        return threat.project(batch.images + self.by / 255, batch.images)\n"
    )
    (stranger / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "stranger"\nversion = "1.2"\n'
        '[project.entry-points."reid_attack_bench.attacks"]\nshift = "stranger:Shift"\n'
        "[tool.setuptools]\npy-modules = ['stranger']\n"
    )
    tree = tmp_path_factory.mktemp("tree") / "bench"  # a build leaves files behind, so not in this checkout
    left_out = shutil.ignore_patterns(".*", "runs", "build", "results", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, tree, ignore=left_out)
    for place in (tree, stranger):
        pip("install", "--quiet", "--no-deps", "--target", str(folder), "--upgrade", str(place))
    return folder


def run(site: Path, *arguments: str, cwd: Path) -> str:
    process = subprocess.run(
        [sys.executable, "-m", "reid_attack_bench", *arguments], cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_attacks_victims_and_suites_are_all_there(site: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [sys.executable, "-c", "import reid_attack_bench.attacks.misranking as m; print(m.__file__)"],
        cwd=tmp_path, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(site)},
    ).stdout  # fmt: skip
    assert str(site) in where
    listed = run(site, "list", "attacks", "--json", cwd=tmp_path)
    assert '"misranking"' in listed
    assert '"quick"' in run(site, "list", "suites", "--json", cwd=tmp_path)
    assert "stranger 1.2" in listed


def test_a_stranger_s_attack_runs_in_the_matrix(site: Path, tmp_path: Path, tiny, write_suite) -> None:
    tiny["attacks"] = {"shift": {"options": {"by": 2}}}
    run(site, "run", write_suite(tiny), cwd=tmp_path)
    matrix = (tmp_path / "runs/tiny/matrix.csv").read_text()
    assert matrix.count("\nshift,8,") == 8
