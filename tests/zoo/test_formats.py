"""What is a file of weights, and what is none."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from reid_attack_bench.errors import BenchError
from reid_attack_bench.zoo.formats import suffix_of
from tests.plugins.python2 import save_as_python_2

STATE = OrderedDict(
    weight=torch.rand(10, 3), counter=torch.tensor(3), half=torch.rand(7).half(), mask=torch.tensor([True, False])
)
CHECKPOINT = {"state_dict": STATE, "rank1": np.float64(0.9), "again": STATE["weight"][:2], "epoch": 5}


def legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def made(folder: Path) -> dict[str, bytes]:
    """One file of each kind."""
    path, found = folder / "made", {}
    torch.save(CHECKPOINT, path)
    found["zip"] = path.read_bytes()
    legacy(CHECKPOINT, path)
    found["legacy"] = path.read_bytes()
    save_as_python_2(CHECKPOINT, path)
    found["python 2"] = path.read_bytes()
    found["safetensors"] = save(dict(STATE))
    path.unlink()
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return made(tmp_path_factory.mktemp("made"))


@pytest.mark.parametrize("kind", ["zip", "legacy", "python 2", "safetensors"])
def test_whole_files_are_recognised(files: dict[str, bytes], kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(files[kind])
    assert suffix_of(path, "it") == (".safetensors" if kind == "safetensors" else ".pth")


@pytest.mark.parametrize("kind", ["zip", "legacy", "python 2", "safetensors"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_anywhere_is_refused(
    files: dict[str, bytes], kind: str, share: float, tmp_path: Path
) -> None:
    path, content = tmp_path / "file", files[kind]
    path.write_bytes(content[: max(16, int(share * len(content)))])
    with pytest.raises(BenchError, match=r"^it ends early, after \d+ bytes"):
        suffix_of(path, "it")


def test_a_whole_model_is_recognised_without_running_its_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    for new in (True, False):
        torch.save(
            {"model": torch.nn.Linear(2, 2), "evil": Evil()}, tmp_path / "a.pth", _use_new_zipfile_serialization=new
        )
        assert suffix_of(tmp_path / "a.pth", "it") == ".pth"
    assert not (tmp_path / "ran").exists()


def packed(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, "content")
    return stream.getvalue()


PAGE = b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan</title></head></html>"
QUOTA = b"<html><head><title>Quota exceeded</title></head>Too many users have viewed or downloaded this file</html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (PAGE, 'it is a web page instead of weights \\("Google Drive - Virus scan"\\): open its address in a browser'),
        (b"\n  <html>", "it is a web page instead of weights: open"),
        (QUOTA, "it is a web page instead of weights: its download quota is used up; try again in a day"),
        (POINTER, "it is a Git-LFS pointer instead of weights: run git lfs pull"),
        (b"PNG nonsense, long enough", "it is not a checkpoint of PyTorch or safetensors: it starts with b'PNG"),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0", r"it is an ONNX model \(victim onnx\) instead of a checkpoint"),
        (b"\x1f\x8b\x08\x00", "it is a gzip archive, to be unpacked, instead of"),
        (b'{"message": "Not Found"}', "it is a text file, perhaps JSON, instead of"),
        (packed("weights/net.pth"), "it is a zip file of weights/net.pth instead of a checkpoint: unpack it"),
        (packed("net/archive_format"), r"it is a torch.export archive \(victim torch-export\)"),
        (pickle.dumps({"a": 1}, 2), "it is a pickle, but not a checkpoint of PyTorch"),
        (b"\x10" + b"\0" * 7 + b'{"a": {"dtype":1', "it is not a readable safetensors file: its header is damaged"),
    ],
)
def test_each_thing_that_comes_in_place_of_weights_has_its_words(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BenchError, match=f"^{says}") as raised:
        suffix_of(tmp_path / "file", "it")
    assert "\n" not in str(raised.value)


def test_a_zip_file_with_a_changed_byte_is_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    content = bytearray(files["zip"])
    at = content.index(STATE["weight"].numpy().tobytes()[:16])
    content[at] ^= 255
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BenchError, match=r"it is damaged: the checksum of .* differs"):
        suffix_of(tmp_path / "file", "it")
