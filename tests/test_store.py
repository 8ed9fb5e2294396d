"""Artefacts are whole or absent, and checked when read."""

from __future__ import annotations

import json

import pytest

from reid_attack_bench.store import CorruptArtefact, Store, digest_of


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


def test_equal_configurations_have_equal_digests() -> None:
    assert digest_of({"a": 1, "b": [1.5, None]}) == digest_of(json.loads('{"b": [1.5, null], "a": 1}'))
    assert digest_of({"a": 1}) != digest_of({"a": 2})
    with pytest.raises(ValueError, match=r"NaN|nan|Out of range"):
        digest_of({"a": float("nan")})
