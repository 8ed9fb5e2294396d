"""Assignments as text: plans, plug-in files and versions that reach another machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute.assignment import Assignment, as_text, from_text
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse
from tests.data.conftest import people, pictures

VICTIM = """
import torch
from beside import DIMENSIONS
from reid_attack_bench.contracts import Victim

class Mine(Victim):
    input_size = (32, 16)
    differentiable = True

    def embed(self, images):
        return images.mean(dim=(2, 3)).repeat(1, DIMENSIONS)
"""


DATA = """
import beside
from reid_attack_bench.data.readers.market1501 import Market1501

class Mine(Market1501):
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A victim in a file and a data set in another, with a module beside them, and the images."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here/mine.py").write_text(VICTIM)
    (tmp_path / "here/images.py").write_text(DATA)
    pictures(tmp_path / "market", people((1, 2, 3, 4), (1, 2)))
    (tmp_path / "here/beside.py").write_text("DIMENSIONS = 2\n")
    return tmp_path / "here"


@pytest.fixture
def text(folder: Path) -> str:
    sizes, root = (
        {"train_identities": 4, "test_identities": 4, "images_per_camera": 1, "queries_per_identity": 1},
        folder.parent / "market",
    )
    document = {
        "name": "one",
        "image_size": [32, 16],
        "datasets": {"plaza": sizes, "own": {"layout": f"{folder / 'images.py'}:Mine", "root": str(root)}},
        "victims": {"mine": {"use": f"{folder / 'mine.py'}:Mine"}},
        "attacks": {"noise": {"epsilon": [8]}},
    }
    plan = make_plan(parse.parse(document))
    return as_text(Assignment(plan, Store(folder / "store"), torch.device("cpu"), threads=3))


def test_the_steps_have_the_same_keys_where_the_files_are_missing(text: str, folder: Path) -> None:
    here = from_text(text)
    for name in ("mine.py", "images.py", "beside.py"):
        (folder / name).unlink()
    there = from_text(text)
    assert list(there.plan.steps) == list(here.plan.steps)
    assert (there.store, there.device, there.threads) == (Store(folder / "store"), torch.device("cpu"), 3)


@pytest.mark.parametrize("name", ["mine.py", "images.py", "beside.py"])
def test_a_file_of_another_content_is_refused(text: str, folder: Path, name: str) -> None:
    (folder / name).write_text((folder / name).read_text() + "\nDIMENSIONS = 3\n")
    with pytest.raises(BenchError, match=r"(mine|images).py, or a module beside it, differs from that on the machine"):
        from_text(text)


def test_another_version_is_refused_with_both_named(text: str) -> None:
    values = json.loads(text)
    values["versions"]["torch"] = "1.13.1"
    with pytest.raises(
        BenchError, match=rf"it has torch {torch.__version__.partition('+')[0]}\S*, not 1.13.1: install"
    ):
        from_text(json.dumps(values))


def test_paths_of_a_run_in_another_folder_are_absolute(
    text: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = from_text(text)
    monkeypatch.chdir(folder)
    sent = as_text(replace(job, store=Store(Path("store"))))
    monkeypatch.chdir(folder.parent)
    assert from_text(sent).store.root == folder / "store"
