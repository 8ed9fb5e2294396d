"""Artefacts are whole or absent, and checked when read."""

from __future__ import annotations

import json
import os
import time

import pytest

from reid_attack_bench import files
from reid_attack_bench import store as store_module
from reid_attack_bench.files import digest_of
from reid_attack_bench.store import LARGE, CorruptArtefact, Store


def fill(store: Store, key: str = "k1", text: str = "hello") -> None:
    with store.write("data", key, {"facts": {}}) as folder:
        (folder / "a.txt").write_text(text)


def test_written_once_read_back(tmp_path) -> None:
    store = Store(tmp_path)
    assert not store.has("data", "k1")
    fill(store)
    assert (store.open("data", "k1") / "a.txt").read_text() == "hello"
    assert list((tmp_path / "pending").iterdir()) == []


def test_nothing_is_left_when_writing_fails(tmp_path) -> None:
    store = Store(tmp_path)

    def interrupted() -> None:
        with store.write("data", "k1", {}) as folder:
            (folder / "a.txt").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert not store.has("data", "k1")
    assert list((tmp_path / "pending").iterdir()) == []


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda f: (f / "a.txt").write_text("hellO"), "a.txt does not match"),
        (lambda f: (f / "a.txt").unlink(), "a.txt is missing"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json"),
    ],
)
def test_corruption_is_seen(tmp_path, harm, says) -> None:
    store = Store(tmp_path)
    fill(store)
    harm(store.folder("data", "k1"))
    with pytest.raises(CorruptArtefact, match=says):
        store.open("data", "k1")
    store.discard("data", "k1")
    fill(store)
    store.open("data", "k1")


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Names of the files whose content was read for a digest."""
    names: list[str] = []
    digest = files.file_digest
    monkeypatch.setattr(store_module, "file_digest", lambda path: names.append(path.name) or digest(path))
    return names


def test_a_large_file_is_read_once_and_a_small_one_every_time(tmp_path, read) -> None:
    store = Store(tmp_path)
    with store.write("data", "k1", {"facts": {}}) as folder:
        (folder / "large").write_bytes(b"x" * LARGE)
        (folder / "small").write_bytes(b"x")
    assert sorted(read) == ["large", "small"]
    read.clear()
    store.open("data", "k1")
    assert read == ["small"]


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_large_file_that_was_touched_is_read_again(tmp_path, keep_times: bool) -> None:
    store = Store(tmp_path)
    fill(store, text="x" * LARGE)
    path = store.folder("data", "k1") / "a.txt"
    before = path.stat()
    with path.open("r+") as stream:
        stream.write("y")
    if keep_times:  # as nobody does by accident
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(CorruptArtefact, match="does not match"):
        store.open("data", "k1")
    store.discard("data", "k1")
    fill(store, text="x" * LARGE)
    store.open("data", "k1")


def test_a_copied_store_is_read_in_full_once(tmp_path, read) -> None:
    import shutil

    fill(Store(tmp_path / "a"), text="x" * LARGE)
    copied = Store(shutil.copytree(tmp_path / "a", tmp_path / "b"))
    time.sleep(0.03)
    read.clear()
    for _ in range(2):
        copied.open("data", "k1")
    assert read == ["a.txt"]


def test_equal_configurations_have_equal_digests() -> None:
    assert digest_of({"a": 1, "b": [1.5, None]}) == digest_of(json.loads('{"b": [1.5, null], "a": 1}'))
    assert digest_of({"a": 1}) != digest_of({"a": 2})
    with pytest.raises(ValueError, match=r"NaN|nan|Out of range"):
        digest_of({"a": float("nan")})
