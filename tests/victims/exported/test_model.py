"""Files as people have them: of a fixed batch, with channels last, in half precision; what does not run is one line."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from reid_attack_bench.errors import BenchError, VictimError
from reid_attack_bench.victims.exported import ExportedModel, OnnxModel, OpenVinoModel, TorchScriptModel
from tests.victims.exported.networks import SIZE, Colours, Convolutions, images, onnx_file, scripted

CASES = Path(__file__).parent / "cases"
PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}


class Fixed(nn.Module):
    """Runs on `count` images only; or on any number, but gives one row for all."""

    def __init__(self, count: int, silent: bool = False) -> None:
        super().__init__()
        self.inner, self.rows, self.columns = Convolutions(), count, -1 if silent else 12

    def forward(self, batch):
        return self.inner(batch).view(self.rows, self.columns)


def test_torchscript_of_a_fixed_batch_runs_in_that_batch() -> None:
    """tests/…/cases/fixed1.ts, as of a tracker."""
    victim, batch = TorchScriptModel(CASES / "fixed1.ts", input_size=SIZE, trust_code=True), images(5)
    found = victim.embed(batch)
    network = torch.jit.load(CASES / "fixed1.ts")
    expected = torch.cat([network(victim.preprocessing(each[None])) for each in batch])
    torch.testing.assert_close(found, expected)
    batch.requires_grad_(True)
    victim.embed(batch).sum().backward()
    assert batch.grad is not None
    assert (batch.grad.flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize("silent", [False, True])
def test_a_batch_of_one_is_found_out(tmp_path: Path, silent: bool) -> None:
    network = Fixed(1, silent)
    with torch.no_grad():
        file = tmp_path / "one.ts"
        torch.jit.trace(network, images(1)).save(str(file))
    found = TorchScriptModel(file, input_size=SIZE, **PLAIN, trust_code=True).embed(images(5)).detach()
    torch.testing.assert_close(found, Convolutions()(images(5)).detach(), atol=1e-6, rtol=1e-5)


def test_another_fixed_batch_is_named_and_given(tmp_path: Path) -> None:
    file = tmp_path / "four.ts"
    torch.jit.trace(Fixed(4), images(4)).save(str(file))
    with pytest.raises(VictimError, match=r"^four.ts does not run on 5 images of 64×32: shape '\[4, 12\]' is invalid"):
        TorchScriptModel(file, input_size=SIZE, **PLAIN, trust_code=True).embed(images(5))
    found = TorchScriptModel(file, input_size=SIZE, batch=4, **PLAIN, trust_code=True).embed(images(5)).detach()
    torch.testing.assert_close(found, Convolutions()(images(5)).detach(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("gradients", [None, True])
def test_channels_last_are_moved(gradients: bool | None) -> None:
    """tests/…/cases/nhwc.onnx, as of TensorFlow."""
    victim, batch = OnnxModel(CASES / "nhwc.onnx", gradients=gradients), images()
    assert victim.input_size == SIZE, "as the file says"
    session = pytest.importorskip("onnxruntime").InferenceSession(
        CASES / "nhwc.onnx", providers=["CPUExecutionProvider"]
    )
    ready = victim.preprocessing(batch).permute(0, 2, 3, 1).contiguous().numpy()
    np.testing.assert_allclose(victim.embed(batch).detach(), session.run(None, {"x": ready})[0], atol=1e-5)
    with pytest.raises(BenchError, match="was exported for images of 64×32, not 256×128"):
        OnnxModel(CASES / "nhwc.onnx", input_size=(256, 128))


def test_channels_last_in_openvino_and_torch_export(tmp_path: Path) -> None:
    expected = OnnxModel(CASES / "nhwc.onnx").embed(images())
    found = OpenVinoModel(CASES / "nhwc.onnx").embed(images())
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)

    class Last(Colours):
        def forward(self, batch):
            return super().forward(batch.permute(0, 3, 1, 2))

    program = torch.export.export(Last().eval(), (torch.rand(2, *SIZE, 3),))
    torch.export.save(program, tmp_path / "last.pt2")
    victim = ExportedModel(tmp_path / "last.pt2", **PLAIN, trust_code=True)
    torch.testing.assert_close(victim.embed(images()), Colours()(images()), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["torchscript", "onnx", "onnx with gradients", "torch-export"])
def test_half_precision(tmp_path: Path, kind: str) -> None:
    network, expected = Convolutions().half(), Convolutions()(images()).detach()
    if kind == "torchscript":
        victim = TorchScriptModel(scripted(network, tmp_path / "h.ts"), input_size=SIZE, **PLAIN, trust_code=True)
    elif kind == "torch-export":
        program = torch.export.export(network, (images(3).half(),))
        torch.export.save(program, tmp_path / "h.pt2")
        victim = ExportedModel(tmp_path / "h.pt2", **PLAIN, trust_code=True)
    else:
        file = onnx_file(network, tmp_path / "h.onnx")
        victim = OnnxModel(file, gradients="with" in kind or None, **PLAIN)
    found = victim.embed(images()).detach()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-2)


def test_other_inputs_are_one_line(tmp_path: Path) -> None:
    class Grey(nn.Module):
        def forward(self, batch):
            return batch.mean((2, 3))

    file = tmp_path / "grey.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Grey(), (torch.rand(2, 1, *SIZE),), str(file), dynamo=False)
    with pytest.raises(BenchError, match=r"grey.onnx has an input of shape 2×1×64×32: export it for images N×3×H×W or"):
        OnnxModel(file)
    torch.export.save(torch.export.export(Colours(), (images(2),)), tmp_path / "two.pt2")
    with pytest.raises(BenchError, match="was exported for batches of 2 images, not 3: leave out batch"):
        ExportedModel(tmp_path / "two.pt2", batch=3, trust_code=True)


def test_a_wall_of_text_becomes_one_line(tmp_path: Path) -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 32, 4))

        def forward(self, batch):
            return self.inner(batch)

    with pytest.raises(VictimError) as caught:
        TorchScriptModel(scripted(Wide(), tmp_path / "w.ts"), input_size=(32, 16), trust_code=True).embed(images())
    text = str(caught.value)
    assert text.startswith("w.ts does not run on 3 images of 32×16: mat1 and mat2 shapes cannot be multiplied")
    assert len(text) < 200


def test_a_victim_without_gradients_by_choice(tmp_path: Path) -> None:
    victim = TorchScriptModel(
        scripted(Convolutions(), tmp_path / "n.ts"), input_size=SIZE, gradients=False, trust_code=True
    )
    assert not victim.differentiable
    assert not victim.requires_grad_(False).embed(images().requires_grad_(True)).requires_grad
