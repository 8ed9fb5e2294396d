"""Artefacts are whole or absent, and checked when read."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from reid_attack_bench import files
from reid_attack_bench.files import digest_of
from reid_attack_bench.store import LARGE, CorruptArtefact, Store
from reid_attack_bench.store import local as store_module


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
        (lambda f: (f / "manifest.json").write_text("[]"), "manifest.json is not one"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json: No such file"),
        (lambda f: edit(f, facts={"rank1": 100.0}), "manifest.json was changed"),
        (lambda f: edit(f, label="other"), "manifest.json was changed"),
        (lambda f: edit(f, files={}), "manifest.json was changed"),
        (lambda f: (f / "gallery.npy").write_bytes(b"helps"), "gallery.npy was added"),
        (lambda f: (f / "sub").mkdir(), "sub was added"),
        (lambda f: linked(f / "a.txt"), "a.txt is a link"),
        (lambda f: ((f / "a.txt").unlink(), (f / "a.txt").mkdir()), "a.txt is a link or a folder"),
        (lambda f: linked(f), "a link or a file is in its place"),
        (lambda f: (shutil.rmtree(f), f.write_text("a file")), "manifest.json: Not a directory"),
        (lambda f: (shutil.rmtree(f), f.mkdir()), "manifest.json: No such file"),
    ],
)
def test_corruption_is_seen_and_healed(tmp_path, harm, says) -> None:
    store = Store(tmp_path)
    fill(store)
    time.sleep(0.03)  # so that manifests are remembered
    assert store.has("data", "k1")
    harm(store.folder("data", "k1"))
    with pytest.raises(CorruptArtefact, match=says):
        store.open("data", "k1")
    store.discard("data", "k1")
    assert not store.occupied("data", "k1")
    fill(store)
    store.open("data", "k1")


def edit(folder: Path, **values: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def linked(path: Path) -> None:
    """Move `path` away, and leave a link."""
    path.symlink_to(path.rename(path.parents[1] / "elsewhere"))


@pytest.mark.parametrize("whole", [True, False])
def test_swapped_folders_are_not_taken_for_each_other(tmp_path, whole: bool) -> None:
    store = Store(tmp_path)
    fill(store, "k1", "one")
    fill(store, "k2", "two")
    one, two = store.folder("data", "k1"), store.folder("data", "k2")
    if whole:
        one.rename(tmp_path / "aside")
        two.rename(one)
        (tmp_path / "aside").rename(two)
    else:  # of another kind
        (tmp_path / "rank").mkdir()
        shutil.copytree(one, store.folder("rank", "k1"))
    kind = "data" if whole else "rank"
    assert not store.has(kind, "k1")
    with pytest.raises(CorruptArtefact, match="it is of data k"):
        store.open(kind, "k1")


@pytest.mark.parametrize(
    "harm",
    [
        lambda f: (f / "manifest.json").unlink(),
        lambda f: (shutil.rmtree(f), f.write_text("a file")),
        lambda f: linked(f),
        lambda f: (shutil.rmtree(f.parent), f.parent.write_text("a file")),
        lambda f: (shutil.rmtree(f), f.symlink_to("nowhere")),
    ],
)
def test_a_result_is_written_in_place_of_what_is_none(tmp_path, harm) -> None:
    store = Store(tmp_path)
    fill(store, text="before")
    harm(store.folder("data", "k1"))
    assert not store.has("data", "k1")
    fill(store)
    assert (store.open("data", "k1") / "a.txt").read_text() == "hello"


def test_a_sound_result_that_another_stored_first_is_kept(tmp_path) -> None:
    store = Store(tmp_path)
    fill(store, text="first")
    fill(store, text="second")
    assert (store.open("data", "k1") / "a.txt").read_text() == "first"
    assert list((tmp_path / "pending").iterdir()) == []


def test_a_manifest_without_a_seal_is_read_and_what_it_covers_is_checked(tmp_path) -> None:
    store = Store(tmp_path)
    fill(store)
    path = store.folder("data", "k1") / "manifest.json"
    old = json.loads(path.read_text())
    del old["seal"]
    path.write_text(json.dumps(old, indent=1, sort_keys=True))
    assert store.manifest("data", "k1") == old
    (store.open("data", "k1") / "a.txt").write_text("hellO")
    with pytest.raises(CorruptArtefact, match="does not match"):
        store.open("data", "k1")


def test_facts_of_any_plain_type_survive_their_seal(tmp_path) -> None:
    store = Store(tmp_path)
    with store.write("data", "k1", {"facts": {"a": float("nan"), "b": (1.1, None), "é": {10: 1, 9: 2}, "seal": ""}}):
        pass
    facts = store.manifest("data", "k1")["facts"]
    assert str(facts["a"]) == "nan"
    assert facts["b"] == [1.1, None]


def test_what_systems_add_to_folders_is_not_damage(tmp_path) -> None:
    store = Store(tmp_path)
    fill(store)
    for name in (".nfs000000000012", ".DS_Store"):
        (store.folder("data", "k1") / name).write_bytes(b"")
    store.open("data", "k1")


def test_leftovers_of_a_killed_write_are_swept_anywhere(tmp_path) -> None:
    store = Store(tmp_path)
    fill(store)
    (tmp_path / "pending" / "k1-of-an-earlier-version").mkdir()
    for folder in ("", "checked", "unfinished", "data"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / ".k1.123.tmp").write_bytes(b"cut short")
    (tmp_path / "checked" / "k9").write_text("5")
    store.prepare()
    assert list(tmp_path.rglob("*.tmp")) == []
    assert list((tmp_path / "pending").iterdir()) == []
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
