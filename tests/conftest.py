"""Shared by all tests: one thread for small tensors, a small suite that a run ends in seconds, and the tiers.

A test is of tier `unit`, unless it is marked `e2e` or `slow` or uses a fixture that is end to end. A unit test starts
no process, and under `-m unit` it fails if it computes for more than `UNIT_SECONDS`.
"""

from __future__ import annotations

import importlib
import multiprocessing.process
import os
import shutil
import subprocess
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
import yaml
from hypothesis import settings

from tests.browser import CHROMIUM

torch.set_num_threads(1)
# machines are noisy: UNIT_SECONDS is in processor time; what CI tries is the same for one commit
settings.register_profile("bench", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("bench")

UNIT_SECONDS = 4.0
"""Processor time of one unit test."""

E2E_FIXTURES = {"browser", "finished", "packed", "site", "wheel"}

TOY = Path(__file__).parent / "plugins" / "toy.py"


def tiny_document() -> dict:
    """A suite document: two domains of a dozen people, one toy architecture, one attack of each kind."""
    people = {"train_identities": 8, "test_identities": 4, "images_per_camera": 1, "queries_per_identity": 2}
    return {
        "name": "tiny",
        "image_size": [64, 32],
        "batch_size": 5,
        "headline_epsilon": 8,
        "datasets": {"plaza": dict(people), "station": dict(people)},
        "victims": {"toy": {"use": f"{TOY}:ToyRecipe", "train_on": ["plaza", "station"]}},
        "attacks": {
            "noise": {"epsilon": [4, 8]},
            "pgd": {"options": {"steps": 2}},
            "learner": {"use": f"{TOY}:Learner"},
        },
    }


@pytest.fixture
def tiny() -> dict:
    return tiny_document()


@pytest.fixture
def write_suite(tmp_path: Path):
    def write(document: dict, name: str = "tiny.yaml") -> str:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return str(path)

    return write


def script(path: Path) -> Any:
    """A module outside the packages; it may import those beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))
        return importlib.import_module(path.stem)


@pytest.fixture(scope="module")  # not the session: its event loop would be in the way of others
def browser() -> Iterator[Any]:
    if not CHROMIUM:
        pytest.skip("no chromium: apt-get install chromium, or set CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Iterator[Path]:
    """The built documentation; a broken link, a missing anchor or a page outside the navigation is an error."""
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    out = tmp_path_factory.mktemp("site")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    config = Path(__file__).parent.parent / "mkdocs.yml"
    build(load_config(str(config), site_dir=str(out), strict=True))
    yield out
    shutil.rmtree(out)


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if E2E_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.e2e)
        if not any(item.get_closest_marker(name) for name in ("e2e", "slow")):
            item.add_marker(pytest.mark.unit)


def refused(*_: Any, **__: Any) -> NoReturn:
    pytest.fail("a unit test starts no process: do it in this one, or mark the test e2e")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker("unit"):
            patch.setattr(subprocess.Popen, "__init__", refused)
            patch.setattr(multiprocessing.process.BaseProcess, "start", refused)
            patch.setattr(os, "fork", refused)
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    started = time.process_time()
    result = yield
    if item.config.option.markexpr == "unit":
        in_time(time.process_time() - started)
    return result


def in_time(seconds: float) -> None:
    if seconds > UNIT_SECONDS:
        pytest.fail(f"{seconds:.1f} s for a unit test, more than {UNIT_SECONDS:g} s: make it smaller or mark it e2e")
