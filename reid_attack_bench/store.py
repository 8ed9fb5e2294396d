"""The store: results of steps, addressed by what made them. Written atomically, checked when read."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import TICK, file_digest, fingerprint, is_settled, replace_file

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

DEFAULT_STORE = Path("runs/store")
"""Store of every command and function that is not given another."""

MANIFEST = "manifest.json"

LARGE = 2**18
"""Files of this many bytes or more are not read again after one check while their fingerprint is unchanged."""


class CorruptArtefact(BenchError):  # noqa: N818  describes the file
    """A stored file differs from its manifest."""

    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(f"stored artefact {folder} is corrupt ({why})")
        self.folder = folder


@dataclass(frozen=True)
class Store:
    """A folder of artefacts: ROOT/KIND/KEY/ holds the files of one step and a manifest with their digests."""

    root: Path

    def folder(self, kind: str, key: str) -> Path:
        return self.root / kind / key

    def has(self, kind: str, key: str) -> bool:
        return (self.folder(kind, key) / MANIFEST).is_file()

    def manifest(self, kind: str, key: str) -> dict[str, Any]:
        """The manifest of one result.

        Raises:
            CorruptArtefact: it cannot be read.
        """
        folder = self.folder(kind, key)
        try:
            return dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise CorruptArtefact(folder, f"{MANIFEST}: {error}") from error

    def open(self, kind: str, key: str) -> Path:
        """The folder of one result, after checking every file against its digest.

        A LARGE file that once matched is not read again while its fingerprint is unchanged.

        Raises:
            CorruptArtefact: a file is missing or changed.
        """
        folder = self.folder(kind, key)
        fresh: dict[str, list[Any]] = {}
        known: dict[str, list[Any]] | None = None
        for name, expected in self.manifest(kind, key).get("files", {}).items():
            path = folder / name
            try:
                stat = fingerprint(path)
            except OSError:
                raise CorruptArtefact(folder, f"{name} is missing") from None
            if path.stat().st_size >= LARGE:
                known = self._checked(key) if known is None else known
                if known.get(name) == [expected, *stat]:
                    continue
                if is_settled(stat):  # taken before the file is read: a change meanwhile gives another one
                    fresh[name] = [expected, *stat]
            if file_digest(path) != expected:
                raise CorruptArtefact(folder, f"{name} does not match its digest")
        if fresh:
            self._remember(key, {**(known or {}), **fresh})
        return folder

    @property
    def checked(self) -> Path:
        """Folder of the fingerprints of files that matched their digests."""
        return self.root / "checked"

    def _checked(self, key: str) -> dict[str, list[Any]]:
        """Files that matched: name → digest, followed by the fingerprint."""
        try:
            return dict(json.loads((self.checked / key).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    def _remember(self, key: str, checked: Mapping[str, list[Any]]) -> None:
        # files of a read-only store are read every time
        with contextlib.suppress(OSError):
            replace_file(self.checked / key, json.dumps(checked).encode())

    def unfinished(self, key: str) -> Path:
        """File for checkpoints of the step with this key. It survives a kill; no other step reads it."""
        return self.root / "unfinished" / f"{key}.safetensors"

    def discard(self, kind: str, key: str) -> None:
        (self.checked / key).unlink(missing_ok=True)
        shutil.rmtree(self.folder(kind, key), ignore_errors=True)

    @contextmanager
    def write(self, kind: str, key: str, manifest: Mapping[str, Any]) -> Iterator[Path]:
        """A new folder to fill; on exit the manifest is added and the folder is renamed into place.

        `manifest` is read on exit, so the caller may add to it until then.
        """
        pending = self.root / "pending" / f"{key}-{uuid.uuid4().hex[:8]}"
        pending.mkdir(parents=True)
        try:
            yield pending
            files, checked = _sealed(pending)
            (pending / MANIFEST).write_text(
                json.dumps({**manifest, "files": files}, indent=1, sort_keys=True) + "\n", encoding="utf-8"
            )
            _sync(pending / MANIFEST)
            _sync(pending)
            final = self.folder(kind, key)
            final.parent.mkdir(parents=True, exist_ok=True)
            if checked:
                self._remember(key, checked)
            try:
                pending.rename(final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                shutil.rmtree(pending)  # another worker stored the same result first
            _sync(final.parent)
        except BaseException:
            shutil.rmtree(pending, ignore_errors=True)
            raise

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of this store; without effect where the system has no file locks.

        Raises:
            BenchError: another run uses the store, or it cannot be written to.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / "lock").open("ab")
        except OSError as error:
            raise BenchError(
                f"cannot write to the store {self.root}: {error.strerror}; choose another with --store"
            ) from error
        with lock:
            try:
                if fcntl is not None:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise BenchError(
                    f"another run is using the store {self.root}; wait for it, or choose another with --store"
                ) from None
            yield

    def sweep(self) -> None:
        """Remove what a killed run left half written. Safe only while no other run uses the store."""
        shutil.rmtree(self.root / "pending", ignore_errors=True)
        for cut_short in (self.root / "unfinished").glob(".*.tmp"):
            cut_short.unlink(missing_ok=True)


def _sealed(folder: Path) -> tuple[dict[str, str], dict[str, list[Any]]]:
    """Digests of the files in a finished folder; for LARGE files also [digest, *fingerprint]."""
    files: dict[str, str] = {}
    checked: dict[str, list[Any]] = {}
    for path in sorted(folder.iterdir()):
        _sync(path)  # writes what is left in a memory map
        stat = fingerprint(path)
        large = path.stat().st_size >= LARGE
        if large and not is_settled(stat):
            time.sleep(1.5e-9 * TICK)
        settled = is_settled(stat)
        files[path.name] = file_digest(path)
        if large and settled:
            checked[path.name] = [files[path.name], *stat]
    return files, checked


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
