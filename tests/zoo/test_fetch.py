"""Files of the zoo in their place: checked before they are moved there, their digests recorded and compared."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.zoo import download
from reid_attack_bench.zoo.catalogue import ZooEntry, find
from reid_attack_bench.zoo.fetch import fetch
from reid_attack_bench.zoo.folder import find_file, read_records, weights_folder
from tests.zoo.server import Server, serving

DRIVE = "1vduhq5DpN2q1g4fYEZfPI17MJeh9qyrA"
PAGE = b"<!DOCTYPE html><title>Quota exceeded</title>Too many users have viewed or downloaded this file recently."


def weights(seed: int = 0) -> bytes:
    from io import BytesIO

    stream = BytesIO()
    generator = torch.Generator().manual_seed(seed)
    torch.save(OrderedDict(a=torch.rand(300, 100, generator=generator)), stream)
    return stream.getvalue()


CONTENT = weights()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def model(address: str = "", **fields: Any) -> ZooEntry:
    return ZooEntry("a", "torchreid", "osnet_x1_0", address=address, **fields)


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def quick(server: Server) -> Any:
    """A downloader that does not wait."""
    return lambda url, partial, progress: download.download(server.url, partial, progress, wait=lambda seconds: None)


def test_a_file_is_downloaded_checked_recorded_and_found(tmp_path: Path) -> None:
    with serving(content=CONTENT, drops=[1 << 15]) as server:
        got = fetch(model(server.url), folder=tmp_path, over_http=quick(server))
        assert (got.path, got.sha256, got.is_new) == (tmp_path / "a.pth", SHA256, True)
        assert left(tmp_path) == {"a.pth", "digests.json"}
        assert find_file(model(), tmp_path) == got.path
        record = read_records(tmp_path)["a"]
        assert (record.sha256, record.size, record.origin) == (SHA256, len(CONTENT), server.url)
        again = fetch(model(server.url), folder=tmp_path)
        assert (again.path, again.is_new) == (got.path, False)
        assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (PAGE, "web page instead of weights: its download quota is used up"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git-LFS pointer"),
        (CONTENT[:-100], "ends early, after"),
        (b"", "is empty"),
        (b"\x89PNG.......", "not a checkpoint"),
    ],
)
def test_what_is_no_weights_never_reaches_its_place(tmp_path: Path, content: bytes, says: str) -> None:
    with serving(content=content) as server, pytest.raises(BenchError, match=f"a from {server.url}.*{says}"):
        fetch(model(server.url), folder=tmp_path, over_http=quick(server))
    assert left(tmp_path) == set()


def test_a_length_that_is_too_short_is_noticed(tmp_path: Path) -> None:
    with serving(content=CONTENT, says=len(CONTENT) - 50) as server, pytest.raises(BenchError, match="ends early"):
        fetch(model(server.url), folder=tmp_path, over_http=quick(server))
    assert left(tmp_path) == set()


def test_a_length_that_is_too_long_is_noticed_and_the_rest_kept_to_be_continued(tmp_path: Path) -> None:
    with serving(content=CONTENT, says=len(CONTENT) + 50) as server:
        with pytest.raises(BenchError, match="5 times"):
            fetch(model(server.url), folder=tmp_path, over_http=quick(server))
        assert "a.pth" not in left(tmp_path)
        server.says = None
        assert fetch(model(server.url), folder=tmp_path, over_http=quick(server)).sha256 == SHA256


def test_a_later_download_must_agree_with_the_first(tmp_path: Path) -> None:
    with serving(content=CONTENT) as server:
        entry = model(server.url)
        fetch(entry, folder=tmp_path, over_http=quick(server)).path.unlink()
        server.content, server.tag = weights(seed=1), '"two"'
        with pytest.raises(BenchError, match=rf"the file that came first, from {server.url}, had {SHA256}") as raised:
            fetch(entry, folder=tmp_path, over_http=quick(server))
        assert f"remove a from {tmp_path / 'digests.json'}" in str(raised.value)
        assert left(tmp_path) == {"digests.json"}
        (tmp_path / "digests.json").write_text("{}")
        assert fetch(entry, folder=tmp_path, over_http=quick(server)).is_new


def test_a_file_that_was_changed_in_its_place_is_noticed(tmp_path: Path) -> None:
    with serving(content=CONTENT) as server:
        fetch(model(server.url), folder=tmp_path, over_http=quick(server)).path.write_bytes(weights(seed=1))
        with pytest.raises(BenchError, match="it was changed"):
            fetch(model(server.url), folder=tmp_path)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sha256": "0" * 64}, f"has SHA-256 {SHA256}, the zoo states 0000"),
        ({"sha256": "12345678"}, "the zoo states 12345678: it is another file"),
        ({"size": 5}, f"has {len(CONTENT)} bytes, the zoo states 5"),
    ],
)
def test_a_file_must_be_the_one_that_the_zoo_states(tmp_path: Path, fields: dict[str, Any], says: str) -> None:
    with serving(content=CONTENT) as server:
        with pytest.raises(BenchError, match=says):
            fetch(model(server.url, **fields), folder=tmp_path, over_http=quick(server))
        assert left(tmp_path) == set()
        right = model(server.url, sha256=SHA256[:8], size=len(CONTENT))
        assert fetch(right, folder=tmp_path, over_http=quick(server)).is_new


def test_drive_is_used_for_its_ids_with_the_same_checks(tmp_path: Path) -> None:
    def drive(content: bytes) -> Any:
        def fetched(file_id: str, partial: Path, progress: Any) -> None:
            assert file_id == DRIVE
            partial.write_bytes(content)

        return fetched

    with pytest.raises(BenchError, match=f"a from https://drive.google.com/file/d/{DRIVE}/view is a web page.*quota"):
        fetch(model(DRIVE), folder=tmp_path, from_drive=drive(PAGE))
    assert left(tmp_path) == set()
    assert fetch(model(DRIVE), folder=tmp_path, from_drive=drive(CONTENT)).sha256 == SHA256


@pytest.mark.parametrize(
    "name", ["weights.pth", "a", "a.pth", "a.pth.tar", "a.bin", DRIVE, f"{DRIVE}.pth"]
)  # fmt: skip
def test_files_that_were_fetched_elsewhere_are_found_by_their_names(tmp_path: Path, name: str) -> None:
    source, folder = tmp_path / "usb", tmp_path / "weights"
    source.mkdir()
    (source / name).write_bytes(CONTENT)
    (source / "ab.pth").write_bytes(b"")
    address = DRIVE if name.startswith(DRIVE) else "https://example.org/files/weights.pth"
    got = fetch(model(address), folder=folder, source=source)
    assert (got.path, got.sha256) == (folder / "a.pth", SHA256)
    assert read_records(folder)["a"].origin == str(source / name)
    assert (source / name).read_bytes() == CONTENT


def test_files_from_elsewhere_have_the_same_checks(tmp_path: Path) -> None:
    source, folder = tmp_path / "usb", tmp_path / "weights"
    with pytest.raises(BenchError, match=r"--from .*usb is not a folder"):
        fetch(model(DRIVE), folder=folder, source=source)
    source.mkdir()
    with pytest.raises(BenchError, match=rf"has no file of a: name it a or {DRIVE}, with any suffix"):
        fetch(model(DRIVE), folder=folder, source=source)
    (source / "a.pth").write_bytes(CONTENT[:-10])
    with pytest.raises(BenchError, match="ends early"):
        fetch(model(DRIVE), folder=folder, source=source)
    (source / f"{DRIVE}.pth").write_bytes(CONTENT)
    with pytest.raises(BenchError, match="several files of a"):
        fetch(model(DRIVE), folder=folder, source=source)


def test_safetensors_keep_their_suffix(tmp_path: Path) -> None:
    from safetensors.torch import save

    (tmp_path / "a.bin").write_bytes(save({"a": torch.rand(2)}))
    got = fetch(model(), folder=tmp_path / "weights", source=tmp_path)
    assert got.path.name == "a.safetensors"
    assert find_file(model(), tmp_path / "weights") == got.path


def test_a_model_without_an_address_and_one_of_a_local_file(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="the zoo has no address of a: fetch it yourself, and use --from DIR"):
        fetch(model(), folder=tmp_path)
    (tmp_path / "mine.pth").write_bytes(CONTENT)
    entry = model(file="mine.pth", zoo_file=tmp_path / "zoo.yaml")
    assert fetch(entry, folder=tmp_path / "weights").path == tmp_path / "mine.pth"
    assert not (tmp_path / "weights").exists()


def test_a_users_model_of_a_shipped_name_has_a_file_of_its_own(tmp_path: Path) -> None:
    shipped = find("osnet_x1_0-market1501")
    mine = replace(shipped, stands_in=True, zoo_file=tmp_path / "zoo.yaml")
    (tmp_path / "osnet_x1_0-market1501.pth").write_bytes(CONTENT)
    assert find_file(shipped, tmp_path) is not None
    assert find_file(mine, tmp_path) is None
    assert fetch(mine, folder=tmp_path / "w", source=tmp_path).path.name == "osnet_x1_0-market1501-own.pth"


def test_a_file_that_another_process_is_getting_is_left_alone(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / ".a.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BenchError, match="another process is getting a into"):
            fetch(model(DRIVE), folder=tmp_path)


def test_the_weights_folder_is_that_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REID_ATTACK_BENCH_WEIGHTS", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights_folder() == tmp_path / ".cache" / "reid-attack-bench" / "weights"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert weights_folder() == tmp_path / "x" / "reid-attack-bench" / "weights"
    monkeypatch.setenv("REID_ATTACK_BENCH_WEIGHTS", "~/w")
    assert weights_folder() == tmp_path / "w"


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"a": {"sha": 1}})])
def test_records_that_are_corrupt_are_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "digests.json").write_text(text)
    with pytest.raises(BenchError, match=r"digests.json is corrupt .*: delete it"):
        read_records(tmp_path)
