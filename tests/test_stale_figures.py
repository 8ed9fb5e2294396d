"""What decides an embedding is in the key: figures of before do not stand for a victim that has changed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result

import reid_attack_bench
from reid_attack_bench.cli import main as cli
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.steps.probe import probe
from reid_attack_bench.suites import parse
from reid_attack_bench.victims.exported import OnnxModel
from tests.conftest import TOY

pytestmark = pytest.mark.e2e

HELPER = """
from torch.nn import functional
MEAN = {mean}
def features(x): return functional.{pool}((x - MEAN).abs(), (8, 2)).flatten(1)
"""

VICTIM = """
import json, os, pathlib
from reid_attack_bench.contracts import Victim
{first}

class Mine(Victim):
    input_size = (64, 32)
    def embed(self, images):
        return {embeddings}
"""


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_suite) -> str:
    """A suite of noise on a few people, in whose folder the test goes on."""
    monkeypatch.chdir(tmp_path)
    people = {"train_identities": 4, "test_identities": 8, "images_per_camera": 1, "queries_per_identity": 2}
    small = {"image_size": [64, 32], "headline_epsilon": 8, "datasets": {"plaza": people}, "name": "few"}
    return write_suite({**small, "victims": {}, "attacks": {"noise": {"epsilon": 8}}})


def in_a_new_process(*arguments: str) -> Result:
    """The command line, which imports plug-ins and what they import anew."""
    for name in [name for name in sys.modules if name.startswith(("reid_attack_bench_plugin_", "mynet_"))]:
        del sys.modules[name]
    return CliRunner().invoke(cli.cli, list(arguments), catch_exceptions=False)


def evaluate(suite: str, store: str = "store", victim: str = "mine.py:Mine") -> tuple[bool, float]:
    """Whether there was work to do, and Rank-1."""
    out = Path("runs") / store
    result = in_a_new_process(
        "evaluate", "--victim", victim, "--suite", suite, "--store", store, "--out", str(out), "--workers", "1"
    )
    assert result.exit_code == 0, result.output
    return "nothing to do" not in result.output, float(pd.read_csv(out / "clean.csv")["rank1"][0])


def test_a_helper_module_elsewhere(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on PYTHONPATH: not beside the file, so no digest of a file sees it."""
    helper = Path("lib") / "mynet_pub.py"
    helper.parent.mkdir()
    monkeypatch.syspath_prepend(str(helper.parent.resolve()))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    Path("mine.py").write_text(VICTIM.format(first="from mynet_pub import features", embeddings="features(images)"))
    helper.write_text(HELPER.format(mean=0.5, pool="adaptive_avg_pool2d"))
    worked, before = evaluate(suite)
    assert worked
    assert evaluate(suite) == (False, before)
    helper.write_text(HELPER.format(mean=0.25, pool="adaptive_max_pool2d"))
    worked, rank1 = evaluate(suite)
    assert worked
    assert rank1 == evaluate(suite, "fresh")[1]


def states(suite: str, victim: str = "mine.py:Mine") -> list[str]:
    """Keys of the steps of the victim."""
    result = in_a_new_process("evaluate", "--victim", victim, "--suite", suite, "--dry-run", "--json")
    steps = [json.loads(line) for line in result.stdout.splitlines()]
    return [step["key"] for step in steps if step["kind"] == "victim"]


READS = {
    "file": "json.loads(pathlib.Path('mynet.json').read_text())['mean']",
    "variable": "float(os.environ['MYNET_MEAN'])",
}


@pytest.mark.parametrize("kind", READS)
@pytest.mark.parametrize("when", ["imported", "called"])
def test_a_file_of_settings_or_a_variable_of_the_environment(suite: str, monkeypatch, kind, when) -> None:
    def change(mean: float) -> None:
        Path("mynet.json").write_text(json.dumps({"mean": mean}))
        monkeypatch.setenv("MYNET_MEAN", str(mean))

    first, used = (f"MEAN = {READS[kind]}", "MEAN") if when == "imported" else ("", READS[kind])
    embeddings = f"(images.flatten(2)[:, :, ::7].flatten(1) - {used}).abs()"
    Path("mine.py").write_text(VICTIM.format(first=first, embeddings=embeddings))
    keys = []
    for mean in (0.5, 0.25, 0.5):
        change(mean)
        keys += states(suite)
    assert len(keys) == 3
    assert keys[0] == keys[2] != keys[1]


SETTINGS = {"mean": 0.5}


def mean_of() -> float:
    return SETTINGS["mean"]


def test_a_helper_of_a_model_in_memory(suite: str, monkeypatch) -> None:
    """A function that its methods call from elsewhere, of which no source is digested."""

    class Mine(torch.nn.Module):
        def forward(self, images):
            return (images.flatten(2)[:, :, ::7].flatten(1) - mean_of()).abs()

    def rank_keys() -> set[str]:
        result = reid_attack_bench.evaluate(
            Mine(), suite, input_size=(64, 32), mean=(0, 0, 0), std=(1, 1, 1), store="store", progress=False
        )
        return {row.rank_key for row in result.record.clean}

    before = rank_keys()
    assert rank_keys() == before
    monkeypatch.setitem(SETTINGS, "mean", 0.25)
    assert rank_keys() != before


def test_weights_of_an_onnx_model_in_a_file_of_any_name(tmp_path: Path) -> None:
    onnx, _ = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    kernel = np.random.RandomState(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = make.make_graph(
        [
            make.make_node("Conv", ["images", "kernel"], ["maps"], strides=[8, 8]),
            make.make_node("Relu", ["maps"], ["positive"]),
            make.make_node("Flatten", ["positive"], ["embedding"]),
        ],
        "net",
        [make.make_tensor_value_info("images", kind, ["n", 3, 32, 16])],
        [make.make_tensor_value_info("embedding", kind, ["n", 32])],
        [onnx.numpy_helper.from_array(kernel, "kernel")],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 13)], ir_version=8)
    path = tmp_path / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = probe(OnnxModel(path))
    (-kernel).tofile(tmp_path / "weights.bin")
    assert before != probe(OnnxModel(path)) != ""


def test_a_victim_that_no_seed_repeats_is_named(tiny) -> None:
    tiny["victims"] = {"coin": {"use": f"{TOY.parent / 'unseeded.py'}:Unseeded"}}
    (note,) = make_plan(parse.parse(tiny)).notes
    assert note.startswith("coin answers one image differently with the same seeds")
