"""FastReID's models of the zoo, with a stand-in for its package and, where it is installed, the package itself."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reid_attack_bench.errors import BenchError
from reid_attack_bench.victims.fastreid import fastreid_network
from reid_attack_bench.victims.zoo import ZooModel
from reid_attack_bench.zoo.catalogue import shipped


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bottleneck = nn.Sequential(nn.BatchNorm1d(4))
        self.weight = nn.Parameter(torch.zeros(0, 4))


class Baseline(nn.Module):
    """As FastReID's: normalises images of 0 to 255 itself, in place, and has a head with a normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 3)
        self.heads = Heads()
        self.register_buffer("pixel_mean", torch.full((1, 3, 1, 1), 127.5), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.backbone(images.sub_(self.pixel_mean).div_(50.0)).mean((2, 3))
        return self.heads.bottleneck(features)


class Config:
    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def merge_from_list(self, parts: list[Any]) -> None:
        self.values |= dict(zip(parts[::2], parts[1::2], strict=True))
        if "MODEL.WRONG" in self.values:
            raise KeyError("Non-existent config key: MODEL.WRONG")


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A package fastreid; returns the settings that networks are built with."""
    built: list[dict[str, Any]] = []

    def build_model(config: Config) -> nn.Module:
        built.append(config.values)
        torch.manual_seed(0)
        return Baseline()

    for name, content in (
        ("fastreid", {}),
        ("fastreid.config", {"get_cfg": Config}),
        ("fastreid.modeling", {}),
        ("fastreid.modeling.meta_arch", {"build_model": build_model}),
    ):
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return built


def published(path: Path, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    """A checkpoint with the names of FastReID's release v0.1.1, and its weights under the names of today."""
    torch.manual_seed(1)
    state = {name: torch.rand(value.shape) + 0.5 for name, value in Baseline().state_dict().items()}
    state.pop("heads.weight")
    old = {name.replace("heads.bottleneck.0.", "heads.bnneck."): value for name, value in state.items()}
    classifier = {"heads.classifier.weight": torch.rand(751, 4), "pixel_mean": torch.rand(1, 3, 1, 1)}
    torch.save({"model": {**old, **classifier, **more}, "iteration": 5}, path)
    return state


def zoo(folder: Path, more: str = "") -> Path:
    path = folder / "zoo.yaml"
    path.write_text(
        "models: {bot: {builder: fastreid, architecture: BoT, input: [32, 16], distance: cosine, file: bot.pth, "
        f"settings: {{MODEL.HEADS.WITH_BNNECK: true}}{more}}}}}"
    )
    return path


def test_a_published_file_with_its_old_names_is_read(tmp_path: Path, package: list[dict[str, Any]]) -> None:
    state = published(tmp_path / "bot.pth")
    victim = ZooModel("bot", zoo_file=zoo(tmp_path)).eval()
    assert package == [
        {"MODEL.HEADS.WITH_BNNECK": True, "MODEL.DEVICE": "cpu", "MODEL.BACKBONE.PRETRAIN": False},
    ]
    network = Baseline().eval()
    network.load_state_dict(state, strict=False)
    images = torch.rand(2, 3, 32, 16, requires_grad=True)
    embeddings = victim.embed(images)
    assert torch.allclose(embeddings, network((images * 255).clone()), atol=1e-4)
    embeddings.sum().backward()
    assert bool(images.grad is not None and images.grad.abs().sum() > 0)
    assert (victim.distance, victim.input_size, victim.classifies) == ("cosine", (32, 16), False)


def test_what_does_not_fit_is_said(tmp_path: Path, package: list[dict[str, Any]]) -> None:
    published(tmp_path / "bot.pth", **{"heads.pool_layer.p": torch.ones(1)})
    with pytest.raises(BenchError, match=r"does not fit: unexpected heads.pool_layer.p"):
        ZooModel("bot", zoo_file=zoo(tmp_path))
    with pytest.raises(BenchError, match=r"give MODEL.PIXEL_MEAN and MODEL.PIXEL_STD in settings"):
        ZooModel("bot", zoo_file=zoo(tmp_path, ", mean: [0, 0, 0]"))
    with pytest.raises(BenchError, match=r"Non-existent config key: MODEL.WRONG"):
        fastreid_network({"MODEL.WRONG": 1})


def test_without_the_package_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastreid", None)
    monkeypatch.setitem(sys.modules, "fastreid.config", None)
    with pytest.raises(BenchError, match="pip install fastreid yacs termcolor tabulate") as raised:
        fastreid_network({})
    assert "\n" not in str(raised.value)


@pytest.mark.e2e
@pytest.mark.skipif(importlib.util.find_spec("fastreid") is None, reason="fastreid is not installed")
def test_the_package_builds_every_network_of_the_zoo() -> None:
    kinds = {str(entry.settings): entry for entry in shipped().values() if entry.builder == "fastreid"}
    for entry in kinds.values():
        network = fastreid_network(entry.settings)
        assert network(torch.rand(1, 3, 96, 32) * 255).flatten(1).shape == (1, 2048), entry.name
