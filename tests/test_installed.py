"""Installed from a wheel, with a second package that plugs in by entry point; the wheel whole; editable."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[1]
FOLDERS = {"reid_attack_bench": "", "attacks": "attacks", "victims": "victims"}
"""Folder of the checkout → its place in the package."""


def pip(*arguments: str) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the source (a build leaves files behind) with sub-packages and data that no list can know of."""
    tree = tmp_path_factory.mktemp("tree") / "bench"
    left_out = shutil.ignore_patterns(".*", "runs", "build", "results", "docs", "tests", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, tree, ignore=left_out)
    for folder in FOLDERS:
        add_package(tree / folder / "unheard_of")
        add_package(tree / folder / "unheard_of/inner")
        (tree / folder / "unheard_of/table.new-suffix").write_text("data")
        (tree / folder / "unheard_of/pictures").mkdir()
        (tree / folder / "unheard_of/pictures/one.png").write_text("data")
    return tree


def add_package(folder: Path) -> None:
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "module.py").write_text("FOUND = True\n")


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory) -> Path:
    """Built from the source distribution, so that both hold everything."""
    out = tmp_path_factory.mktemp("wheel")
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(out)], cwd=tree, capture_output=True, text=True, check=True)
    (sdist,) = out.glob("*.tar.gz")
    pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(sdist))
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory) -> Path:
    """A folder that holds the bench's wheel and a stranger's package, and nothing of this checkout."""
    folder = tmp_path_factory.mktemp("site")
    stranger = tmp_path_factory.mktemp("stranger")
    (stranger / "stranger.py").write_text(
        "from dataclasses import dataclass\n"
        "from reid_attack_bench.contracts import Attack\n"
        "@dataclass(frozen=True)\n"
        "class Shift(Attack):\n"
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
    install = ("install", "--quiet", "--no-deps", "--no-build-isolation", "--upgrade", "--target", str(folder))
    pip(*install, str(wheel))
    pip(*install, str(stranger))
    return folder


def run(site: Path, *arguments: str, cwd: Path) -> str:
    process = subprocess.run(
        [sys.executable, "-m", "reid_attack_bench", *arguments], cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_a_wheel_holds_every_file_of_the_source_folders_and_no_other(tree: Path, wheel: Path) -> None:
    expected = {
        (Path("reid_attack_bench") / place / path.relative_to(tree / folder)).as_posix()
        for folder, place in FOLDERS.items()
        for path in (tree / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert {name for name in held if ".dist-info/" not in name} == expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in held)
    names = {Path(name).name for name in expected}
    assert {"py.typed", "card.schema.json", "published.csv", "report.js", "skeleton.py", "quick.yaml"} <= names


def test_an_editable_install_finds_packages_added_later(tree: Path, tmp_path: Path) -> None:
    pip("install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(tmp_path), "--editable", str(tree))
    code = "import site, sys\nsite.addsitedir(sys.argv[1])  # before the packages of this interpreter\nsite.main()\n"
    for folder, place in FOLDERS.items():
        add_package(tree / folder / "added_later")
        name = ".".join(filter(None, ("reid_attack_bench", place, "added_later.module")))
        code += f"import {name}\nassert {name}.__file__.startswith(sys.argv[2])\n"
    subprocess.run([sys.executable, "-S", "-c", code, str(tmp_path), str(tree)], cwd=tmp_path, check=True)


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
