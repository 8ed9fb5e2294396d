"""OpenVINO models give the embeddings of the network that they were converted from."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from reid_attack_bench.contracts import IMAGENET_MEAN, IMAGENET_STD, preprocess, weights_digest
from reid_attack_bench.errors import BenchError, VictimError
from reid_attack_bench.victims.exported import OnnxModel, OpenVinoModel
from tests.victims.exported.networks import SIZE, Convolutions, images, onnx_file, openvino_file

pytestmark = pytest.mark.e2e


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return openvino_file(Convolutions(), tmp_path / "net.xml")


def expected(batch: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return Convolutions()(preprocess(batch, SIZE, IMAGENET_MEAN, IMAGENET_STD))


def test_it_is_the_network(file: Path) -> None:
    victim = OpenVinoModel(file)
    assert victim.input_size == SIZE, "as the file says"
    assert not victim.differentiable
    for count in (1, 3):
        torch.testing.assert_close(victim.embed(images(count)), expected(images(count)), atol=1e-4, rtol=0)


def test_a_fixed_batch_and_onnx(tmp_path: Path) -> None:
    for made in (
        openvino_file(Convolutions(), tmp_path / "two.xml", batch=2),
        onnx_file(Convolutions(), tmp_path / "net.onnx"),
    ):
        torch.testing.assert_close(OpenVinoModel(made).embed(images(5)), expected(images(5)), atol=1e-4, rtol=0)


def test_its_weights_belong_to_the_key(file: Path) -> None:
    before = OpenVinoModel(file)
    assert (before.embed(images()) - expected(images())).abs().max() < 1e-4
    other = Convolutions()
    other.head[0].weight.data *= 3
    file.with_suffix(".bin").write_bytes(
        openvino_file(other, file.with_name("other.xml")).with_suffix(".bin").read_bytes()
    )
    after = OpenVinoModel(file)
    assert (after.embed(images()) - before.embed(images())).abs().max() > 0.1
    assert weights_digest(after) != weights_digest(before)
    file.write_text(file.read_text() + "\n")
    assert weights_digest(OpenVinoModel(file)) != weights_digest(after)


def test_several_outputs(tmp_path: Path) -> None:
    class Two(Convolutions):
        def forward(self, batch):
            return self.body(batch).mean((2, 3)), super().forward(batch)

    network = Two().eval()
    made = openvino_file(network, tmp_path / "two.xml")
    with pytest.raises(VictimError, match=r"several outputs \(.*3×8.*3×12\): select the embedding with output="):
        OpenVinoModel(made).embed(images())
    outputs = network(preprocess(images(), SIZE, IMAGENET_MEAN, IMAGENET_STD))
    for place in (0, 1):
        found = OpenVinoModel(made, output=place).embed(images())
        torch.testing.assert_close(found, outputs[place].detach(), atol=1e-4, rtol=0)


def test_what_cannot_be_read_is_one_line(file: Path) -> None:
    with pytest.raises(BenchError, match=r"net.bin holds the weights of an OpenVINO model: give net.xml"):
        OpenVinoModel(file.with_suffix(".bin"))
    file.with_suffix(".bin").unlink()
    with pytest.raises(BenchError, match=r"net.xml has no weights: put net.bin into its folder"):
        OpenVinoModel(file)
    file.with_suffix(".bin").touch()
    file.write_text("<html>")
    with pytest.raises(BenchError, match=r"is not a readable OpenVINO model .*export it again") as caught:
        OpenVinoModel(file)
    assert "\n" not in str(caught.value)


def test_it_runs_in_a_forked_process_too(file: Path) -> None:
    """The bench forks its workers after the victims are made; threads do not come along."""
    victim = OpenVinoModel(file)
    found = victim.embed(images())
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=lambda: there.send(victim.embed(images()).numpy()))
    process.start()
    assert here.poll(60), "it hangs"
    np.testing.assert_allclose(here.recv(), found.numpy(), atol=1e-6)
    process.join(30)


def test_a_runtime_has_the_threads_of_its_caller_although_a_plan_was_made_with_one(file: Path, tmp_path: Path) -> None:
    before, onnx = torch.get_num_threads(), OnnxModel(onnx_file(Convolutions(), tmp_path / "net.onnx"))
    vino, seen = OpenVinoModel(file), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            onnx.embed(images())
            vino.embed(images())
            session = onnx._sessions[os.getpid(), count].get_session_options().intra_op_num_threads
            seen.append((session, vino._compiled[os.getpid(), count].get_property("INFERENCE_NUM_THREADS")))
    finally:
        torch.set_num_threads(before)
    assert seen == [(1, 1), (2, 2)]
