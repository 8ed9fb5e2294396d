"""The bottleneck of strong baselines is kept or named, wherever it stands in a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models

from reid_attack_bench.contracts import preprocess
from reid_attack_bench.errors import BenchError
from reid_attack_bench.victims.backbones import TimmBackbone, TorchvisionBackbone

SIZE = (64, 32)
IMAGES = torch.rand(3, 3, 64, 32, generator=torch.Generator().manual_seed(0))


class Baseline(nn.Module):
    """As reid-strong-baseline: `base`, `bottleneck`, `classifier`."""

    def __init__(self, base: nn.Module, width: int) -> None:
        super().__init__()
        self.base, self.bottleneck = base, trained_norm(width)
        self.classifier = nn.Linear(width, 7, bias=False)


def trained_norm(width: int) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(width)
    norm.load_state_dict({name: torch.rand_like(value.float()) + 0.5 for name, value in norm.state_dict().items()})
    return norm


def backbone() -> nn.Module:
    torch.manual_seed(0)
    return models.resnet18(weights=None)


def inside(width: int = 512) -> tuple[dict[str, torch.Tensor], nn.Module]:
    network = backbone()
    network.fc = nn.Sequential(trained_norm(width), nn.Linear(width, 7))
    return network.state_dict(), network


def strong_baseline() -> tuple[dict[str, torch.Tensor], nn.Module]:
    network = backbone()
    whole = Baseline(network, 512)
    network.fc = nn.Sequential(whole.bottleneck, nn.Linear(512, 7))
    state = {f"module.{name}": value for name, value in whole.state_dict().items() if not name.startswith("base.fc")}
    return state, network


def fastreid() -> tuple[dict[str, torch.Tensor], nn.Module]:
    """The names of FastReID: its ResNet has those of torchvision."""
    network = backbone()
    neck = trained_norm(512)
    state = {f"backbone.{name}": value for name, value in network.state_dict().items() if not name.startswith("fc")}
    state |= {f"heads.bottleneck.0.{name}": value for name, value in neck.state_dict().items()}
    network.fc = nn.Sequential(neck, nn.Linear(512, 7))
    return {**state, "heads.weight": torch.rand(7, 512)}, network


@pytest.mark.parametrize("kind", [inside, strong_baseline, fastreid])
def test_the_embedding_is_taken_on_the_side_that_was_asked_for(tmp_path: Path, kind: Callable) -> None:
    state, network = kind()
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(BenchError, match=r"has a trained bottleneck .*(fc\.0|bottleneck).* neck=after or neck=before"):
        TorchvisionBackbone("resnet18", tmp_path / "w.pth")
    neck, network.eval().fc = network.eval().fc[0], nn.Identity()
    with torch.no_grad():
        pooled = network(preprocess(IMAGES, SIZE))
        for side, expected in (("before", pooled), ("after", neck(pooled))):
            victim = TorchvisionBackbone("resnet18", tmp_path / "w.pth", input_size=SIZE, neck=side).eval()
            torch.testing.assert_close(victim.embed(IMAGES), expected)
            assert any("neck" in name for name in victim.state_dict()) == (side == "after")


def test_other_layers_in_the_classifier_are_named(tmp_path: Path) -> None:
    network = backbone()
    network.fc = nn.Sequential(nn.Linear(512, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 7))
    torch.save(network.state_dict(), tmp_path / "w.pth")
    for neck in ("", "after"):
        with pytest.raises(
            BenchError, match=r"several layers, fc\.0 \(64×512\), fc\.1 \(64\), fc\.3 \(7×64\): take the"
        ):
            TorchvisionBackbone("resnet18", tmp_path / "w.pth", neck=neck)
    network.eval().fc = nn.Identity()
    victim = TorchvisionBackbone("resnet18", tmp_path / "w.pth", input_size=SIZE, neck="before").eval()
    with torch.no_grad():
        torch.testing.assert_close(victim.embed(IMAGES), network(preprocess(IMAGES, SIZE)))


def test_a_plain_classifier_of_any_size_is_ignored(tmp_path: Path) -> None:
    for classes in (1, 1001):
        torch.save(models.resnet18(weights=None, num_classes=classes).state_dict(), tmp_path / "w.pth")
        assert TorchvisionBackbone("resnet18", tmp_path / "w.pth").input_size == (256, 128)
    with pytest.raises(BenchError, match="has no single bottleneck of 512 values: leave out neck=after"):
        TorchvisionBackbone("resnet18", tmp_path / "w.pth", neck="after")
    with pytest.raises(BenchError, match="neck and entry are for weights from a file"):
        TorchvisionBackbone("resnet18", untrained=True, neck="after")


def test_a_bottleneck_in_the_classifier_of_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet10t", pretrained=False, num_classes=7)
    neck = trained_norm(512)
    network.fc = nn.Sequential(neck, nn.Linear(512, 7))
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, tmp_path / "w.pth")
    victim = TimmBackbone("resnet10t", tmp_path / "w.pth", input_size=SIZE, neck="after").eval()
    network.eval().fc = nn.Identity()
    with torch.no_grad():
        ready = preprocess(IMAGES, SIZE, victim.mean, victim.std)
        torch.testing.assert_close(victim.embed(IMAGES), neck.eval()(network(ready)))
