"""An ONNX file as a white-box source: the same embeddings and gradients as the network that it was exported from."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from reid_attack_bench.contracts import IMAGENET_MEAN, IMAGENET_STD, Victim, preprocess
from reid_attack_bench.errors import BenchError
from reid_attack_bench.jobs.run import run
from reid_attack_bench.victims.checkpoint import TorchreidCheckpoint
from reid_attack_bench.victims.exported import OnnxModel, OpenVinoModel
from reid_attack_bench.victims.exported import onnx_file as adapter
from tests.victims.exported.networks import SIZE, Convolutions, Parts, images, onnx_file

pytest.importorskip("onnx2torch")

REAL = Path(__file__).parents[4] / "shared" / "weights" / "osnet_x0_25_msmt17"
needs_real = pytest.mark.skipif(not REAL.with_suffix(".onnx").is_file(), reason="the real network is not here")


class Attention(nn.Module):
    """A transformer of one block, with a class token."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.norm = nn.Conv2d(3, 8, 16, 16), nn.LayerNorm(8)
        self.token, self.mix, self.last = nn.Parameter(torch.rand(1, 1, 8)), nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, batch):
        tokens = self.patches(batch).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.token.expand(batch.size(0), -1, -1), tokens), 1)
        query, key, value = self.mix(self.norm(tokens)).chunk(3, -1)
        mixed = (query @ key.transpose(1, 2) / 8**0.5).softmax(-1) @ value
        return self.last(nn.functional.gelu(tokens + mixed))[:, 0]


class Pooled(Convolutions):
    """With a global maximum, as BoxMOT's LightMBN."""

    def forward(self, batch):
        return torch.cat((super().forward(batch), nn.functional.adaptive_max_pool2d(self.body(batch), 1).flatten(1)), 1)


def gradient(embed, batch: torch.Tensor) -> torch.Tensor:
    batch = batch.clone().requires_grad_(True)
    return torch.autograd.grad(embed(batch).square().sum(), batch)[0]


@pytest.mark.parametrize(
    ("network", "opset"), [(Convolutions, 12), (Convolutions, 17), (Convolutions, 20), (Attention, 16), (Pooled, 17)]
)
def test_embeddings_and_gradients_are_those_of_the_network(tmp_path: Path, network, opset: int) -> None:
    made = network().eval()
    victim = OnnxModel(onnx_file(made, tmp_path / "net.onnx", opset=opset), gradients=True).eval()
    assert victim.differentiable

    def expected(batch: torch.Tensor) -> torch.Tensor:
        return made(preprocess(batch, SIZE, IMAGENET_MEAN, IMAGENET_STD))

    for count in (1, 3):
        batch = images(count, 80, 40)
        torch.testing.assert_close(victim.embed(batch), expected(batch), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(gradient(victim.embed, batch), gradient(expected, batch), atol=1e-5, rtol=1e-4)


def test_gradients_are_asked_for(tmp_path: Path) -> None:
    file = onnx_file(Convolutions(), tmp_path / "net.onnx")
    plain = OnnxModel(file)
    assert not plain.differentiable
    assert list(plain.state_dict()) == ["content"], "its key is that of before"
    copied = copy.deepcopy(OnnxModel(file, gradients=True))
    torch.testing.assert_close(copied.embed(images()), plain.embed(images()), atol=1e-5, rtol=0)


def test_one_of_several_outputs(tmp_path: Path) -> None:
    class Two(Convolutions):
        def forward(self, batch):
            return self.body(batch).mean((2, 3)), super().forward(batch)

    file = onnx_file(Two(), tmp_path / "two.onnx")
    for output in (0, 1):
        found = OnnxModel(file, gradients=True, output=output).embed(images())
        torch.testing.assert_close(found, OnnxModel(file, output=output).embed(images()), atol=1e-5, rtol=0)


def test_parts_have_gradients(tmp_path: Path) -> None:
    settings = {"normalise": "parts", "parts_axis": 2, "flip": "sum"}
    file = onnx_file(Parts(), tmp_path / "parts.onnx")
    victim = OnnxModel(file, gradients=True, **settings)
    torch.testing.assert_close(victim.embed(images()), OnnxModel(file, **settings).embed(images()), atol=1e-5, rtol=0)
    assert (gradient(lambda batch: victim.embed(batch)[:, ::5], images()).flatten(1).norm(dim=1) > 0).all()


def unknown_operator(file: Path) -> Path:
    onnx = pytest.importorskip("onnx")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("ThresholdedRelu", ["images"], ["a"], alpha=0.1),
        helper.make_node("GlobalAveragePool", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["features"]),
    ]
    inputs = [helper.make_tensor_value_info("images", floats, ["n", 3, *SIZE])]
    outputs = [helper.make_tensor_value_info("features", floats, ["n", 3])]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7), str(file))
    return file


def test_an_unknown_operator_is_named_and_the_file_stays_a_target(tmp_path: Path) -> None:
    file = unknown_operator(tmp_path / "net.onnx")
    with pytest.raises(
        BenchError,
        match=r"^net.onnx: onnx2torch knows no ThresholdedRelu of opset 12, so it has no gradients: .* target$",
    ):
        OnnxModel(file, gradients=True)
    assert OnnxModel(file).embed(images()).shape == (3, 3)


def test_a_conversion_that_differs_is_refused(tmp_path: Path, monkeypatch) -> None:
    file = onnx_file(Convolutions(), tmp_path / "net.onnx")
    other = Convolutions()
    other.head[0].weight.data *= 1.01
    monkeypatch.setattr(adapter, "converted", lambda *_: other)
    with pytest.raises(BenchError, match=r"the network that onnx2torch makes of it differs by .*, where its largest"):
        OnnxModel(file, gradients=True)


def test_other_runtimes_have_no_gradients(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(BenchError, match="models of this format have no gradients here: leave out gradients=true"):
        OpenVinoModel(onnx_file(Convolutions(), tmp_path / "net.onnx"), gradients=True)


# a real network


def both() -> tuple[Victim, Victim]:
    converted = OnnxModel(REAL.with_suffix(".onnx"), gradients=True)
    original = TorchreidCheckpoint("osnet_x0_25", REAL.with_suffix(".safetensors"), distance="cosine")
    return converted.eval().requires_grad_(False), original.eval().requires_grad_(False)


@needs_real
@pytest.mark.e2e
def test_a_real_onnx_file_is_its_state_dict() -> None:
    converted, original = both()
    batch = images(2, 128, 64)
    torch.testing.assert_close(converted.embed(batch), original.embed(batch), atol=1e-4, rtol=0)
    found, expected = gradient(converted.embed, batch).numpy(), gradient(original.embed, batch).numpy()
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)


@needs_real
@pytest.mark.slow
def test_an_attack_breaks_a_real_onnx_file_as_it_breaks_the_state_dict(tmp_path: Path, write_suite) -> None:
    people = {"train_identities": 8, "test_identities": 24, "images_per_camera": 1, "queries_per_identity": 1}
    onnx = {"file": str(REAL.with_suffix(".onnx")), "gradients": True}
    checkpoint = {"arch": "osnet_x0_25", "file": str(REAL.with_suffix(".safetensors")), "distance": "cosine"}
    suite = {
        "name": "real",
        "image_size": [128, 64],
        "datasets": {"plaza": people},
        "victims": {
            "onnx": {"use": "onnx", "options": onnx},
            "checkpoint": {"use": "torchreid-checkpoint", "options": checkpoint},
        },
        "attacks": {"metric_pgd": {"epsilon": 8, "options": {"steps": 10}}},
    }
    cells = run(write_suite(suite), out=tmp_path / "out", store=tmp_path / "store").matrix
    cells = cells.set_index(["source", "target"])
    assert set(cells.index) == {(one, other) for one in ("onnx", "checkpoint") for other in ("onnx", "checkpoint")}
    assert cells.clean_rank1.min() > 90
    assert cells.rank1.max() < 10
    assert np.ptp(cells.rank1) <= 100 / 24, "one query"
