"""A damaged store is healed by the next run, and said: for goals, and for what they are made from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reid_attack_bench.execute import executor
from reid_attack_bench.execute.events import Listener
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.steps.step import Step
from reid_attack_bench.store import Store
from tests.execute.conftest import results, small

pytestmark = pytest.mark.e2e

CPU = torch.device("cpu")

KINDS = ("data", "victim", "clean", "clean-rank", "fit", "craft", "measure", "features", "rank")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    """A plan, and the store of its run."""
    plan, root = small(), tmp_path_factory.mktemp("finished") / "store"
    assert executor.execute(plan, Store(root), CPU).causes == []
    return plan, root


@pytest.fixture
def small_plan(finished: tuple[Plan, Path]) -> Plan:
    return finished[0]


@pytest.fixture
def store(finished: tuple[Plan, Path], tmp_path: Path) -> Store:
    return Store(shutil.copytree(finished[1], tmp_path / "store"))


class Notes(Listener):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def of_kind(plan: Plan, kind: str) -> list[Step]:
    return [step for step in plan.steps.values() if step.kind == kind]


def truncate(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:100])


def change_facts(folder: Path) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "facts": {**manifest["facts"], "rank1": 100.0}}))


def replace_by_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_bytes(b"")


def replace_by_link(folder: Path) -> None:
    folder.symlink_to(folder.rename(folder.parent / "elsewhere"))


def link_files(folder: Path) -> None:
    for path in [path for path in folder.iterdir() if path.name != "manifest.json"]:
        moved = path.rename(folder.parent / f"elsewhere-{path.name}")
        path.symlink_to(moved)
    if len(list(folder.iterdir())) == 1:  # a result that is facts alone
        change_facts(folder)


HARMS: dict[str, Callable[[Path], object]] = {
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "truncated manifest": truncate,
    "changed facts": change_facts,
    "added file": lambda folder: (folder / "gallery.npy").write_bytes(b"helps"),
    "a file instead": replace_by_file,
    "a link instead": replace_by_link,
    "links inside": link_files,
}


@pytest.mark.parametrize("harm", list(HARMS))
def test_damage_of_any_kind_of_step_is_healed_and_said(small_plan: Plan, store: Store, harm: str) -> None:
    listener = Notes()
    before = results(small_plan, store)
    facts = {key: store.manifest(step.kind, key)["facts"] for key, step in small_plan.steps.items()}
    damaged = [of_kind(small_plan, kind)[-1] for kind in KINDS]
    for step in damaged:
        HARMS[harm](store.folder(step.kind, step.key))
    outcome = executor.execute(small_plan, store, CPU, listener)
    assert outcome.causes == []
    assert sorted(outcome.rebuilt) == sorted(step.label for step in damaged)
    assert len([line for line in listener.said if "is corrupt; making it again" in line]) == len(damaged)
    assert set(outcome.seconds) == {step.key for step in damaged}, "and nothing else was"
    assert results(small_plan, store) == before
    for step in damaged:  # times differ
        plain = {name: value for name, value in facts[step.key].items() if "seconds" not in name}
        again = store.manifest(step.kind, step.key)["facts"]
        assert {name: again[name] for name in plain} == plain
    assert executor.execute(small_plan, store, CPU, listener).seconds == {}


def test_swapped_folders_are_made_again(small_plan: Plan, store: Store) -> None:
    before = results(small_plan, store)
    swapped = [of_kind(small_plan, kind)[:2] for kind in ("craft", "measure", "features", "rank")]
    for one, two in swapped:
        here, there, aside = store.folder(one.kind, one.key), store.folder(two.kind, two.key), store.root / "aside"
        here.rename(aside)
        there.rename(here)
        aside.rename(there)
    outcome = executor.execute(small_plan, store, CPU)
    assert sorted(outcome.rebuilt) == sorted(step.label for pair in swapped for step in pair)
    assert results(small_plan, store) == before


def test_a_kind_whose_folder_is_a_file_is_made_again(small_plan: Plan, store: Store) -> None:
    before = results(small_plan, store)
    for kind in ("rank", "checked", "pending", "unfinished"):
        shutil.rmtree(store.root / kind, ignore_errors=True)
        (store.root / kind).write_bytes(b"")
    assert executor.execute(small_plan, store, CPU).causes == []
    assert results(small_plan, store) == before


def test_what_no_goal_is_made_from_is_left_alone(small_plan: Plan, store: Store) -> None:
    data, rank = of_kind(small_plan, "data")[0], of_kind(small_plan, "rank")[0]
    truncate(store.folder("rank", rank.key))
    assert executor.execute(replace(small_plan, wanted=(data.key,)), store, CPU).rebuilt == []
