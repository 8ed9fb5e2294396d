"""Every kind of file through check-victim, and through a small suite of its own data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from reid_attack_bench.cli import main as cli
from reid_attack_bench.jobs.run import run
from tests.victims.exported.networks import SIZE, Convolutions, Parts, onnx_file, openvino_file, scripted

pytestmark = pytest.mark.e2e

PARTS = {"normalise": "parts", "parts_axis": 2, "flip": "sum"}


def victims(folder: Path) -> dict[str, dict[str, Any]]:
    """Label → entry of a suite."""
    network = Convolutions(32)
    return {
        "lightmbn": {"use": "torchscript", "options": {
            "file": str(scripted(Parts(), folder / "parts.ts")), "input_size": list(SIZE), "trust_code": True,
            **PARTS}},
        "torchscript": {"use": "torchscript", "options": {
            "file": str(scripted(network, folder / "net.ts")), "input_size": list(SIZE), "trust_code": True,
            "convention": "boxmot"}},
        "onnx": {"use": "onnx", "options": {"file": str(onnx_file(network, folder / "net.onnx"))}},
        "onnx-source": {"use": "onnx", "options": {"file": str(folder / "net.onnx"), "gradients": True}},
        "openvino": {"use": "openvino", "options": {
            "file": str(openvino_file(network, folder / "net.xml")), "convention": "boxmot"}},
    }  # fmt: skip


def test_each_is_checked_and_attacked(tmp_path: Path, tiny, write_suite) -> None:
    entries = victims(tmp_path)
    suite = {
        **tiny,
        "datasets": {"plaza": tiny["datasets"]["plaza"]},
        "victims": {
            label: {**each, "roles": ["source", "target"] if label in SOURCES else ["target"]}
            for label, each in entries.items()
        },
        "attacks": {"metric_pgd": {"epsilon": 8, "options": {"steps": 2}}},
    }
    path = write_suite(suite)
    for label, entry in entries.items():
        options = [f"--option={name}={value}" for name, value in entry["options"].items()]
        result = CliRunner().invoke(cli.cli, ["check-victim", entry["use"], *options, "--suite", path])
        assert result.exception is None, f"{label}: {result.output}"
    cells = run(path, out=tmp_path / "out", store=tmp_path / "store").matrix
    assert set(cells.source) == set(SOURCES)
    assert set(cells.target) == set(entries)
    assert (cells.status == "ok").all(), cells.status


SOURCES = ("lightmbn", "torchscript", "onnx-source")
