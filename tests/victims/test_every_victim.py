"""Every registered victim, ours or another package's, through the contract: recipes, defences and ready models."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from reid_attack_bench import registry
from reid_attack_bench.checks.check import check
from reid_attack_bench.contracts import (
    Defence,
    FitContext,
    LearnedDefence,
    Recipe,
    State,
    TrainingData,
    Victim,
    to_float,
    weights_digest,
)
from reid_attack_bench.steps.examine import examine
from reid_attack_bench.victims.torchreid_zoo import untrained_model
from tests.plugins.toy import ToyVictim
from tests.victims.exported.networks import Convolutions, openvino_file
from tests.victims.test_adapters import Net, exported, onnx, scripted

pytestmark = pytest.mark.e2e

EVERY = sorted(registry.available("victim"))

SMALL_NET = {"arch": "shufflenet_v2_x0_5", "input_size": (64, 32)}


def checkpoint(folder: Path) -> Path:
    torch.manual_seed(0)
    torch.save(untrained_model("shufflenet_v2_x0_5", 8).state_dict(), folder / "weights.pth")
    return folder / "weights.pth"


def zoo_file(weights: Path) -> Path:
    path = weights.with_name("zoo.yaml")
    model = f"{{builder: torchreid, architecture: shufflenet_v2_x0_5, input: [64, 32], file: {weights}}}"
    path.write_text(f"models: {{small: {model}}}")
    return path


def timm_model(folder: Path) -> dict[str, Any]:
    pytest.importorskip("timm")
    return {"arch": "resnet10t", "untrained": True, "input_size": (64, 32)}


TRUSTED = {"trust_code": True}

SMALL: dict[str, Callable[[Path], dict[str, Any]]] = {
    "adversarial-training": lambda folder: {"steps": 2, "batch_identities": 4, "attack_steps": 1},
    "uap-training": lambda folder: {"steps": 2, "batch_identities": 4},
    "onnx": lambda folder: {"file": onnx(Net(), folder / "net.onnx"), "input_size": (32, 16)},
    "openvino": lambda folder: {"file": openvino_file(Convolutions(), folder / "net.xml")},
    "timm": timm_model,
    "torch-export": lambda folder: {"file": exported(Net(), folder / "net.pt2"), "input_size": (32, 16), **TRUSTED},
    "torchreid": lambda folder: {**SMALL_NET, "epochs": 1, "batch_identities": 4},
    "torchreid-checkpoint": lambda folder: {**SMALL_NET, "file": checkpoint(folder)},
    "torchscript": lambda folder: {"file": scripted(Net(), folder / "net.ts"), "input_size": (32, 16), **TRUSTED},
    "zoo": lambda folder: {"name": "small", "zoo_file": zoo_file(checkpoint(folder))},
    "torchvision": lambda folder: {**SMALL_NET, "untrained": True},
}
"""Options for those that have no defaults for all, or would train long with them, made in a folder for their files."""

SECONDS = 15.0
"""Of computing, that one victim may take to be built and trained."""


def people(count: int = 12, cameras: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 N×64×32×3 of `count` identities, each of four bright colours, with identities and cameras."""
    rng = np.random.default_rng(0)
    colours = rng.integers(60, 220, (count, 1, 4, 1, 3)).repeat(16, axis=2)
    light = rng.uniform(0.9, 1.0, (1, cameras, 1, 1, 1))
    images = np.clip(colours * light + rng.normal(0, 6, (count, cameras, 64, 32, 3)), 0, 255).astype(np.uint8)
    identities, cameras_of = np.indices((count, cameras)).reshape(2, -1)
    return images.reshape(-1, 64, 32, 3), identities, cameras_of


IMAGES, PEOPLE, CAMERAS = people()
TRAINING = TrainingData("toys", IMAGES, PEOPLE, CAMERAS)


def toy() -> Victim:
    """The victim that a defence defends."""
    return ToyVictim(12).eval().requires_grad_(False)


class Made:
    """A victim, and how it came about: `plugin` as built, the `state` that it learnt, and `again`, from that state."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.started = name, folder, time.process_time()
        self.options = SMALL[name](folder) if name in SMALL else {}
        factory = registry.find("victim", name)
        required = [
            each.name
            for each in inspect.signature(factory.factory).parameters.values()
            if each.default is each.empty and each.name not in self.options and each.kind not in (each.VAR_KEYWORD,)
        ]
        assert not required, f"victim {name} has no default for {', '.join(required)}: give it a row in SMALL"
        self.plugin = factory.build(self.options)
        self.state = self.fit()
        self.victim = self.from_state(self.state)

    def fit(self) -> State | None:
        if not isinstance(self.plugin, (Recipe, LearnedDefence)):
            return None
        torch.manual_seed(0)  # as the bench does
        context = FitContext(torch.device("cpu"), torch.Generator().manual_seed(0), progress=self.in_time)
        data = (toy(), TRAINING) if isinstance(self.plugin, Defence) else (TRAINING,)
        return self.plugin.fit(*data, context)

    def from_state(self, state: State | None) -> Victim:
        if isinstance(self.plugin, Victim):
            made = self.plugin
        else:
            made = self.plugin.defend(toy(), state) if isinstance(self.plugin, Defence) else self.plugin.load(state)
        return made.eval().requires_grad_(False)

    def in_time(self, done: int = 0, total: int = 0, note: str = "") -> None:
        assert time.process_time() - self.started < SECONDS, (
            f"{self.name} computes for more than {SECONDS:g} s with {self.options or 'its defaults'}: give it small "
            f"options in SMALL of {__name__}"
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Callable[[str], Made]:
    @functools.cache
    def make(name: str) -> Made:
        return Made(name, tmp_path_factory.mktemp(name))

    return make


def embeddings(victim: Victim) -> torch.Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        return victim.embed(to_float(IMAGES))


def test_there_are_victims_and_no_row_for_one_that_is_not() -> None:
    assert set(SMALL) <= set(EVERY)


@pytest.mark.parametrize("name", EVERY)
def test_check_victim_finds_no_fault(made, name: str) -> None:
    """Shapes, eval mode, side effects, determinism, independence of the batch, gradients, logits, purify, rejects."""
    victim = made(name).victim
    found = check(victim, IMAGES, PEOPLE, CAMERAS)
    assert [each for each in found if each.level == "fault"] == []
    levels = {each.name: each.level for each in found}
    assert {"output", "eval mode", "side effects", "determinism", "batch independence", "gradient"} <= set(levels)
    assert levels["determinism"] == "ok", "random where it says so, and nowhere else"
    assert levels["batch independence"] == ("note" if victim.randomised else "ok")


@pytest.mark.parametrize("name", EVERY)
def test_it_is_what_it_declares(made, name: str) -> None:
    each = made(name)
    victim, found = each.victim, examine(each.victim, torch.device("cpu"))
    assert found["found_randomised"] == victim.randomised
    assert victim.differentiable == ("zero_gradient" in found)
    assert victim.differentiable == each.plugin.differentiable, "known before it is made"
    assert embeddings(victim).dtype == torch.float32
    assert not any(module.training for module in victim.modules())
    if isinstance(each.plugin, Defence):
        assert victim.defence
        assert not toy().defence
    logits, both = victim.logits(to_float(IMAGES[:2])), victim.outputs(to_float(IMAGES[:2]))
    assert (logits is None) == (both[1] is None)
    assert logits is None or logits.shape[0] == 2


@pytest.mark.parametrize("name", EVERY)
def test_it_comes_back_from_what_is_stored(made, name: str) -> None:
    """A recipe and a defence from the state that they learnt; a ready model from its options."""
    each = made(name)
    if isinstance(each.plugin, Victim):
        again = registry.find("victim", name).build(each.options).eval()
    else:
        state = each.state
        if state is not None:
            assert all(isinstance(value, torch.Tensor) and value.device.type == "cpu" for value in state.values())
            state = load(save({key: value.contiguous() for key, value in state.items()}))
        again = each.from_state(state)
    assert weights_digest(again) == weights_digest(each.victim)
    assert torch.equal(embeddings(again), embeddings(each.victim))


@pytest.mark.parametrize("name", EVERY)
def test_training_is_repeated_and_leaves_the_defended_victim_alone(made, name: str) -> None:
    each = made(name)
    if each.state is None:
        return
    each.started = time.process_time()
    again = each.fit()
    assert again is not None
    assert each.state.keys() == again.keys()
    assert all(torch.equal(value, again[key]) for key, value in each.state.items())
    if isinstance(each.plugin, Defence):
        inner, digest = toy(), weights_digest(toy())
        defended = each.plugin.defend(inner, each.state).eval().requires_grad_(False)
        embeddings(defended)
        assert weights_digest(inner) == digest
        assert {"embed", "logits", "purify", "suspicion"}.isdisjoint(vars(inner))


def test_a_victim_that_trains_long_is_told_what_to_do(tmp_path: Path, made) -> None:
    slow = made("jpeg")
    before, slow.started = slow.started, time.process_time() - 2 * SECONDS
    with pytest.raises(AssertionError, match="jpeg computes for more than 15 s with its defaults: give it small"):
        slow.in_time()
    slow.started = before


def test_a_new_victim_without_a_row_is_told_what_it_lacks(tmp_path: Path, monkeypatch) -> None:
    def needy(file: str, size: int = 3) -> Victim:
        raise AssertionError("not built without its file")

    monkeypatch.setattr(registry, "find", lambda kind, name: registry.Plugin(kind, name, needy, "v1", "here"))
    with pytest.raises(AssertionError, match="victim needy has no default for file: give it a row in SMALL"):
        Made("needy", tmp_path)
