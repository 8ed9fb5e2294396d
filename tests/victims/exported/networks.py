"""Small networks to export, and their files."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE = (64, 32)


class Colours(nn.Module):
    """Its input in 4×2 cells; N×3×H×W → N×24. What it is given can be read in its embeddings."""

    def forward(self, images: Tensor) -> Tensor:
        return functional.avg_pool2d(images, (images.shape[2] // 4, images.shape[3] // 2)).flatten(1)


class Convolutions(nn.Module):
    """N×3×H×W → N×`features`; with batch norms of trained statistics, and a fully connected layer as OSNet's."""

    def __init__(self, features: int = 12) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 8, 3, groups=8)
        )
        self.head = nn.Sequential(nn.Linear(8, features), nn.BatchNorm1d(features), nn.ReLU())
        self.train()(torch.rand(16, 3, *SIZE))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        maps = self.body(images)
        return self.head(functional.adaptive_avg_pool2d(maps, 1).view(maps.size(0), -1))


class Parts(nn.Module):
    """As LightMBN: N×3×H×W → N×8×7 features, one column for each of 7 parts, of very different lengths."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 5, 4, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1))
        self.register_buffer("lengths", torch.tensor([1.0, 10.0, 100.0, 1.0, 1.0, 1.0, 0.1]))

    def forward(self, images: Tensor) -> Tensor:
        maps = self.body(images)
        several = [maps.mean((2, 3)), maps.amax((2, 3)), *maps[:, :, :15].unflatten(2, (5, 3)).mean((3, 4)).unbind(2)]
        return torch.stack(several, 2) * self.lengths


def scripted(network: nn.Module, file: Path, size: tuple[int, int] = SIZE) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is old
        torch.jit.trace(network.eval(), torch.rand(2, 3, *size).to(next(network.parameters(), torch.zeros(1)))).save(
            str(file)
        )
    return file


def onnx_file(network: nn.Module, file: Path, size: tuple[int, int] = SIZE, opset: int = 17) -> Path:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    images = torch.rand(2, 3, *size).to(next(network.parameters(), torch.zeros(1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is a newer exporter, which needs onnxscript
        torch.onnx.export(network.eval(), (images,), str(file), dynamo=False, input_names=["images"],
                          dynamic_axes={"images": {0: "batch"}}, opset_version=opset)  # fmt: skip
    return file


def openvino_file(network: nn.Module, file: Path, size: tuple[int, int] = SIZE, batch: int = -1) -> Path:
    openvino = pytest.importorskip("openvino")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = openvino.convert_model(network.eval(), example_input=torch.rand(2, 3, *size), input=[batch, 3, *size])
    openvino.save_model(model, file, compress_to_fp16=False)
    return file


def images(count: int = 3, height: int = 64, width: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))
