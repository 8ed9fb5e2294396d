"""Both import layouts of torchreid, with packages made on the spot."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from reid_attack_bench.errors import BenchError
from reid_attack_bench.torchreid_import import torchreid_module


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose packages are found first, with the installed torchreid forgotten for the while."""
    installed = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torchreid"}
    for name in installed:
        del sys.modules[name]
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "torchreid"]:
        del sys.modules[name]
    sys.modules.update(installed)


def package(site: Path, dotted: str, text: str = "") -> None:
    folder = site.joinpath(*dotted.split("."))
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(text)
    importlib.invalidate_caches()


def test_the_layout_of_pypi(site: Path) -> None:
    for name in ("torchreid", "torchreid.reid", "torchreid.reid.metrics"):
        package(site, name)
    package(site, "torchreid.reid.metrics.rank", "import warnings\nwarnings.warn('Cython')\nwho = 'pypi'")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torchreid_module("metrics.rank").who == "pypi"


def test_the_layout_of_the_repository(site: Path) -> None:
    for name in ("torchreid", "torchreid.metrics"):
        package(site, name)
    package(site, "torchreid.metrics.rank", "who = 'repository'")
    assert torchreid_module("metrics.rank").who == "repository"
    with pytest.raises(BenchError, match=r"no module metrics\.other"):
        torchreid_module("metrics.other")


@pytest.mark.parametrize("layout", ["torchreid.reid", "torchreid"])
def test_a_dependency_that_is_missing_is_named(site: Path, layout: str) -> None:
    package(site, "torchreid")
    if layout != "torchreid":
        package(site, layout)
    package(site, f"{layout}.engine", "import no_such_dependency")
    with pytest.raises(BenchError, match="without no_such_dependency"):
        torchreid_module("engine")


def test_torchreid_itself_missing(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(site)])
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if "PathFinder" in repr(finder)])
    with pytest.raises(BenchError, match="pip install torchreid"):
        torchreid_module("metrics.rank")


def test_a_torchreid_that_does_not_import(site: Path) -> None:
    package(site, "torchreid", "from math import no_such_name")
    with pytest.raises(BenchError, match="no_such_name"):
        torchreid_module("metrics.rank")
