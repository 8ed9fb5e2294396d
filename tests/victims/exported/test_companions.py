"""What decides an embedding is in the key: external weights of ONNX under any name, and the weights of OpenVINO."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_attack_bench.contracts import weights_digest
from reid_attack_bench.victims.exported import OnnxModel, TorchScriptModel
from reid_attack_bench.victims.exported.companions import companions, external_locations
from tests.victims.exported.networks import SIZE, Convolutions, images, onnx_file, scripted

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=200).filter(str.strip)


def external(file: Path, location: str) -> Path:
    """The model of `file` in a folder of its own, with all weights in a file at `location`."""
    onnx = pytest.importorskip("onnx")
    target = file.parent / "moved" / file.name
    (target.parent / location).parent.mkdir(parents=True)
    onnx.save_model(onnx.load(file), str(target), save_as_external_data=True, location=location, size_threshold=0)
    return target


@pytest.mark.parametrize("location", ["net.onnx.data", "Weights of mine.bin", "sub/w", "x" * 200])
def test_external_weights_belong_to_the_key(tmp_path: Path, location: str) -> None:
    file = external(onnx_file(Convolutions(), tmp_path / "net.onnx"), location)
    assert companions(file) == (file.parent / location,)
    before = OnnxModel(file)
    embeddings = before.embed(images())
    weights = np.fromfile(file.parent / location, np.float32)
    (weights * 3).tofile(file.parent / location)
    after = OnnxModel(file)
    assert (after.embed(images()) - embeddings).abs().max() > 0.1
    assert weights_digest(after) != weights_digest(before)


@settings(max_examples=60)
@given(st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_the_names_are_those_that_the_package_onnx_reads(tmp_path_factory, names: list[str]) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    for name in names:
        tensor = onnx.TensorProto(name=f"location{name}", raw_data=b"1")
        onnx.external_data_helper.set_external_data(tensor, name, offset=3)
        model.graph.initializer.append(tensor)
    file = tmp_path_factory.mktemp("f") / "m.onnx"
    file.write_bytes(model.SerializeToString())
    assert sorted(external_locations(file)) == sorted(names)


def test_a_model_in_one_file_has_the_key_that_it_always_had(tmp_path: Path) -> None:
    for victim, file in (
        (OnnxModel, onnx_file(Convolutions(), tmp_path / "n.onnx")),
        (TorchScriptModel, scripted(Convolutions(), tmp_path / "n.ts")),
    ):
        made = victim(file, input_size=SIZE, trust_code=True)
        content = hashlib.sha256(hashlib.sha256(file.read_bytes()).hexdigest().encode()).digest()
        assert bytes(made.content.tolist()) == content
        assert all(name == "content" or name.startswith("model.") for name in made.state_dict())
        (tmp_path / f"{file.name}.data").write_bytes(b"never read, but counted before")
        both = (
            hashlib.sha256(file.read_bytes()).hexdigest()
            + hashlib.sha256(b"never read, but counted before").hexdigest()
        )
        again = victim(file, input_size=SIZE, trust_code=True)
        assert bytes(again.content.tolist()) == hashlib.sha256(both.encode()).digest()
        assert torch.equal(again.embed(images()), made.embed(images()))


@pytest.mark.parametrize(
    "content", [b"", b"\n\x08location\x12", b"\n\x08location\x12\xff\xff", b"\n\x08location\x12\x02\xff\0"]
)
def test_bytes_that_only_look_like_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    assert companions(tmp_path / "m.onnx") == ()
