"""A step is done by one living process at a time, without locks of the file system."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reid_attack_bench.store import Held, Store, claims
from reid_attack_bench.store.claims import STALE, FileClaims, is_gone, owner

ELSEWHERE = "node7-0.123.456"
"""A process of another machine."""


@pytest.fixture
def held(tmp_path: Path) -> FileClaims:
    (tmp_path / "claims").mkdir()
    return FileClaims(tmp_path / "claims")


def put(held: FileClaims, content: str, age: float = 0) -> Path:
    path = held.folder / "k1"
    path.write_text(content)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def dead() -> str:
    """Name of a process of this machine that has ended, with a number that is in use again."""
    machine, pid, _ = owner().split(".")
    return f"{machine}.{pid}.earlier"


def test_a_claim_excludes_others_until_it_is_released(held: FileClaims) -> None:
    with held.claim("k1"):
        assert held.holder("k1") == owner()
        with pytest.raises(Held, match=rf"claimed by process {os.getpid()} on "), held.claim("k1"):
            pass
        with held.claim("k2"):
            pass
    assert held.holder("k1") == ""
    assert list(held.folder.iterdir()) == []
    with pytest.raises(ZeroDivisionError), held.claim("k1"):
        raise ZeroDivisionError
    assert list(held.folder.iterdir()) == []
    assert [thread.name for thread in threading.enumerate() if thread.name == "claim"] == []


@pytest.mark.parametrize(
    ("content", "age", "counts"),
    [
        (f"{ELSEWHERE} token", 0, True),
        (f"{ELSEWHERE} token", STALE + 5, False),
        ("", 0, True),  # about to be written
        ("", STALE + 5, False),
        ("garbage", STALE + 5, False),
        (f"{dead()} token", 0, False),
        (f"{owner()} token", STALE + 5, True),
    ],
    ids=["elsewhere", "stale", "empty", "stale and empty", "garbage", "dead", "own"],  # the same in each process
)
def test_a_claim_counts_while_its_owner_lives(held: FileClaims, content: str, age: float, counts: bool) -> None:
    path = put(held, content, age)
    assert bool(held.holder("k1")) == counts
    if counts:
        with pytest.raises(Held), held.claim("k1"):
            pass
        assert path.read_text() == content
    else:
        with held.claim("k1"):
            assert held.holder("k1") == owner()
    held.sweep()
    assert path.exists() == counts


def test_a_store_that_nobody_prepared_takes_claims_too(tmp_path: Path) -> None:
    held = FileClaims(tmp_path / "store" / "claims")
    with held.claim("k1"):
        assert held.holder("k1") == owner()


def test_a_folder_in_place_of_a_claim_is_in_nobodys_way(held: FileClaims) -> None:
    (held.folder / "k1").mkdir()
    with held.claim("k1"):
        assert held.holder("k1") == owner()


def test_the_owner_keeps_its_claim_by_touching_it(held: FileClaims, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT", 0.01)
    with held.claim("k1"):
        before = (held.folder / "k1").stat().st_mtime_ns
        deadline = time.monotonic() + 10
        while (held.folder / "k1").stat().st_mtime_ns == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_claim_that_was_taken_over_is_not_removed_by_its_former_owner(held: FileClaims) -> None:
    with held.claim("k1"):
        put(held, f"{ELSEWHERE} token")
    assert held.holder("k1") == ELSEWHERE


@pytest.mark.e2e
def test_the_claim_of_a_killed_process_is_taken_over_at_once(held: FileClaims) -> None:
    script = f"""
import time
from pathlib import Path
from reid_attack_bench.store import Store
store = Store(Path({str(held.folder.parent)!r}))
with store.claims.claim("k1"), store.write("data", "k1", {{}}):
    print("holds", flush=True)
    time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    store = Store(held.folder.parent)
    store.prepare()  # of a living process, all is kept
    assert len(list((store.root / "pending").iterdir())) == 1
    assert f".{process.pid}." in held.holder("k1")
    process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while held.holder("k1"):  # also before its parent waits for it
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert is_gone(owner()) is False
    process.wait()
    store.prepare()
    assert list((store.root / "pending").iterdir()) == []
    assert list(held.folder.iterdir()) == []


def test_what_a_node_that_was_lost_left_is_swept_after_a_while(held: FileClaims) -> None:
    store = Store(held.folder.parent)
    store.prepare()
    pending = store.root / "pending" / f"k1~{ELSEWHERE}~12345678"
    pending.mkdir()
    put(held, f"{ELSEWHERE} token")
    store.prepare()
    assert pending.is_dir()
    put(held, f"{ELSEWHERE} token", STALE + 5)
    store.prepare()
    assert not pending.exists()
    assert list(held.folder.iterdir()) == []
