"""Exported files that are programs: refused without a word of trust, which is no part of a key."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from reid_attack_bench import registry
from reid_attack_bench.errors import BenchError
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.suites import parse
from tests.conftest import tiny_document
from tests.victims.exported.networks import SIZE, Convolutions, onnx_file


class Writes(nn.Module):
    """TorchScript that writes a file when it runs."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, images: Tensor) -> Tensor:
        torch.save(images, self.path)
        return images.mean(dim=(2, 3))


def test_torchscript_can_write_files_and_is_refused(tmp_path: Path) -> None:
    written = tmp_path / "written"
    torch.jit.script(Writes(str(written))).save(tmp_path / "net.ts")
    plugin = registry.find("victim", "torchscript")
    with pytest.raises(BenchError, match=r"net\.ts is a program, .*trust_code: true.*or export it to ONNX"):
        plugin.build({"file": str(tmp_path / "net.ts"), "input_size": SIZE})
    assert not written.exists()
    plugin.build({"file": str(tmp_path / "net.ts"), "input_size": SIZE, "trust_code": True}).embed(
        torch.rand(1, 3, 8, 8)
    )
    assert written.exists(), "there is a reason"


def test_torch_export_is_refused_and_onnx_is_not(tmp_path: Path) -> None:
    program = torch.export.export(Convolutions().eval(), (torch.rand(2, 3, *SIZE),))
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(BenchError, match=r"net\.pt2 is a program"):
        registry.find("victim", "torch-export").build({"file": str(tmp_path / "net.pt2")})
    registry.find("victim", "onnx").build({"file": str(onnx_file(Convolutions(), tmp_path / "net.onnx"))})


def test_trust_is_no_part_of_a_key(tmp_path: Path) -> None:
    """Results that were stored before there was the option are still found."""
    file = onnx_file(Convolutions(), tmp_path / "net.onnx")
    keys = set()
    for options in ({}, {"trust_code": True}):
        document = tiny_document() | {"attacks": {"noise": {"epsilon": 8}}}
        document["victims"] = {"mine": {"use": "onnx", "options": {"file": str(file), **options}}}
        keys |= {cell.rank_key for cell in make_plan(parse.parse(document)).cells}
    assert len(keys) == 2, "one for each data set"
