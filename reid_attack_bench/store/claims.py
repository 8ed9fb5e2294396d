"""Claims on steps, so that several runs on one store do not do a step twice.

A claim is a file that exactly one process can create. It needs no locks of the file system. A claim counts while its
owner lives: on this machine that is known at once; an owner on another machine keeps its claim by touching it.
Nothing depends on claims but the work: two processes that do the same step store the same result, and the first wins.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import socket
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reid_attack_bench.errors import BenchError

BEAT = 30.0
"""Seconds between two touches of a claim."""

STALE = 300.0
"""Seconds after which a claim from another machine that was not touched no longer counts."""


class Held(BenchError):  # noqa: N818  describes the step
    """Another process does this step now.

    Attributes:
        owner: the process, as `owner` names it.
    """

    def __init__(self, owner: str) -> None:
        super().__init__(f"claimed by {described(owner)}")
        self.owner = owner


def owner() -> str:
    """Name of this process on all machines, for file names: MACHINE.PID.START."""
    return f"{_machine()}.{os.getpid()}.{_started(os.getpid())}"


def described(name: str) -> str:
    """The owner `name`, for people."""
    machine, _, rest = name.partition(".")
    return f"process {rest.partition('.')[0]} on {machine.rpartition('-')[0]}"


def is_gone(name: str) -> bool | None:
    """Whether the process `name` has ended; None if that is not known, e.g. of one on another machine."""
    machine, _, rest = name.partition(".")
    pid, _, started = rest.partition(".")
    if machine != _machine() or not pid.isdigit():
        return None
    now = _started(int(pid))
    return None if now == "?" else now != started


class Claims(ABC):
    """Claims on steps, by their keys."""

    @contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Have the step `key` for this process alone, as far as can be known.

        Raises:
            Held: another process does it.
            OSError: the store cannot be written to.
        """
        mine = f"{owner()} {uuid.uuid4().hex}"
        if not self.create(key, mine):
            holder = self.holder(key)
            if not holder:
                self.drop(key)
            if holder or not self.create(key, mine):
                raise Held(holder or self.holder(key) or "unknown")
        over = threading.Event()
        beat = threading.Thread(target=self._beat, args=(key, mine, over), daemon=True, name="claim")
        beat.start()
        try:
            yield
        finally:
            over.set()
            beat.join()
            found = self.read(key)
            if found is not None and found[0] == mine:
                self.remove(key)

    def holder(self, key: str) -> str:
        """The living process that does the step `key`; empty if none does."""
        found = self.read(key)
        if found is None:
            return ""
        content, touched = found
        name = content.partition(" ")[0] or "unknown"  # or about to be written
        gone = is_gone(name)
        if gone is None:
            gone = self.now() - touched > STALE
        return "" if gone else name

    def sweep(self) -> None:
        """Remove the claims whose owners are gone."""
        for key in self.keys():
            if not self.holder(key):
                self.drop(key)

    def _beat(self, key: str, mine: str, over: threading.Event) -> None:
        while not over.wait(BEAT):
            with contextlib.suppress(OSError, BenchError):
                self.touch(key, mine)

    @abstractmethod
    def create(self, key: str, content: str) -> bool:
        """Make a claim; False if there is one."""

    @abstractmethod
    def read(self, key: str) -> tuple[str, float] | None:
        """Content of a claim, and when it was touched; None if there is none."""

    @abstractmethod
    def touch(self, key: str, content: str) -> None:
        """Touch a claim, whose content is known."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Remove a claim of this process."""

    @abstractmethod
    def drop(self, key: str) -> None:
        """Remove a claim whose owner is gone, unless somebody else replaced it meanwhile."""

    @abstractmethod
    def keys(self) -> list[str]:
        """Keys of all claims."""

    @abstractmethod
    def now(self) -> float:
        """The time by the clock that times touches, which may be another than ours.

        Raises:
            OSError: the store cannot be written to.
        """


@dataclass(frozen=True)
class FileClaims(Claims):
    """Claims as files in `folder`."""

    folder: Path

    def create(self, key: str, content: str) -> bool:
        try:
            return _created(self.folder / key, content)
        except FileNotFoundError:  # nobody prepared the store
            self.folder.mkdir(parents=True, exist_ok=True)
            return _created(self.folder / key, content)

    def read(self, key: str) -> tuple[str, float] | None:
        path = self.folder / key
        try:
            return path.read_text(encoding="utf-8", errors="replace"), path.stat().st_mtime
        except OSError:
            return None

    def touch(self, key: str, content: str) -> None:
        os.utime(self.folder / key)

    def remove(self, key: str) -> None:
        (self.folder / key).unlink(missing_ok=True)

    def drop(self, key: str) -> None:
        path, aside = self.folder / key, self.folder / f".{key}.{uuid.uuid4().hex}.tmp"
        with contextlib.suppress(OSError):
            path.rename(aside)
            if aside.is_dir():
                aside.rmdir()
            elif is_gone(aside.read_text(encoding="utf-8", errors="replace").partition(" ")[0]) is False:
                aside.rename(path)  # of a living process of this machine
            else:
                aside.unlink()

    def keys(self) -> list[str]:
        return [path.name for path in self.folder.iterdir() if not path.name.startswith(".")]

    def now(self) -> float:
        probe = self.folder / f".{uuid.uuid4().hex}.tmp"
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)


def _created(path: Path, content: str) -> bool:
    """Create a file; False if there is one."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        os.write(handle, content.encode())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
    return True


@functools.cache
def _machine() -> str:
    """Name of this machine, with a digest that tells machines of one name apart."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname())[:40] or "host"
    with contextlib.suppress(OSError):
        return f"{name}-{hashlib.sha256(Path('/etc/machine-id').read_bytes()).hexdigest()[:8]}"
    return f"{name}-0"


def _started(pid: int) -> str:
    """When the process `pid` started, by which another one with its number is told apart.

    Empty if there is none; "?" if it is hidden from this user.
    """
    with contextlib.suppress(OSError):
        state, *rest = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
        return "" if state in "ZX" else f"{_boot()}-{rest[18]}"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "?"
    return "?" if _boot() else "0"  # "0" where there is no /proc


@functools.cache
def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")[:8]
    return ""
