"""A data set in memory, toys as planned plug-ins, and a place where single steps run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.data.catalogue import DataSource
from reid_attack_bench.data.split import Split
from reid_attack_bench.steps import kinds
from reid_attack_bench.steps.attack_run import AttackRun
from reid_attack_bench.steps.data import data_step
from reid_attack_bench.steps.step import Configured, Step
from reid_attack_bench.steps.victim import ready_step
from reid_attack_bench.steps.workspace import Workspace
from tests.plugins.toy import ToyVictim

COUNTS = {"train": 8, "query": 4, "gallery": 12}


class Lab:
    """Runs steps, parents first, each once, and remembers its facts by key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.steps: dict[str, Step] = {}
        self.facts: dict[str, dict] = {}
        self.notes: list[str] = []
        self.workspace = Workspace(
            lambda key: self.folder / key,
            self.steps,
            torch.device("cpu"),
            lambda key: self.folder / f"unfinished-{key}",
            self.notes.append,
        )

    def run(self, step: Step) -> Path:
        """The folder of the step's result."""
        for parent in step.parents.values():
            self.run(parent)
        out = self.folder / step.key
        if step.key not in self.steps:
            self.steps[step.key] = step
            out.mkdir()
            self.facts[step.key] = kinds.run(step, self.workspace, out, lambda done, total, note: None)
        return out


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def people(part: str, rng: np.random.Generator) -> Split:
    """Random images of four people; a query and a gallery image of one person come from different cameras."""
    count = COUNTS[part]
    images = rng.integers(0, 256, (count, 64, 32, 3), dtype=np.uint8)
    return Split(images, np.arange(count) % 4, np.full(count, int(part == "gallery")))


def source(name: str = "plaza") -> DataSource:
    def load(progress, allocate):
        rng = np.random.default_rng(0)
        splits = {part: people(part, rng) for part in COUNTS}
        for part, split in splits.items():
            allocate(part, split.images.shape)[:] = split.images
        return splits

    return DataSource(name, True, "market1501", {"made": "here"}, COUNTS, load)


def alike(people: int, queries: int) -> DataSource:
    """A data set whose people wear colours of their own, with `queries` images and two gallery images each."""
    counts = {"train": people, "query": people * queries, "gallery": people * 2}

    def load(progress, allocate):
        rng = np.random.default_rng(0)
        colours = rng.integers(60, 196, (people, 4, 1, 3))
        splits = {}
        for part, count in counts.items():
            identities = np.arange(count) % people
            bands = np.clip(colours[identities] + rng.normal(0, 25, (count, 4, 1, 3)), 0, 255)
            images = allocate(part, (count, 64, 32, 3))
            images[:] = bands.repeat(16, axis=1).repeat(32, axis=2).astype(np.uint8)
            splits[part] = Split(images, identities, np.full(count, int(part == "gallery")))
        return splits

    return DataSource("alike", True, "market1501", {"made": "here"}, counts, load)


@pytest.fixture
def data() -> Step:
    return data_step(source())


def toy(seed: int = 0, victim: ToyVictim | None = None) -> Step:
    """A ready victim."""
    made = ToyVictim(seed=seed) if victim is None else victim
    return ready_step(f"toy{seed}", Configured("toy", "v1", {"seed": seed}, made))


def attacked(attack, threat: ThreatModel | None = None, **options) -> AttackRun:
    use = Configured(type(attack).__name__, "v1", {}, attack)
    return AttackRun(type(attack).__name__.lower(), use, threat or ThreatModel(), 0, **options)
