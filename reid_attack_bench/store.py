"""The store: artefacts addressed by what made them. Written whole or not at all, checked when read."""

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
from reid_attack_bench.files import _TICK, file_digest, fingerprint, is_settled, replace_file

MANIFEST = "manifest.json"

LARGE = 2**18
"""Bytes from which a file that was once found right is not read again while the system says that it is untouched."""


class CorruptArtefact(BenchError):  # noqa: N818  the name says what it is
    """A stored file is not what its manifest says."""

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
        """The manifest of one artefact.

        Raises:
            CorruptArtefact: it is not readable.
        """
        folder = self.folder(kind, key)
        try:
            return dict(json.loads((folder / MANIFEST).read_text()))
        except (OSError, ValueError) as error:
            raise CorruptArtefact(folder, f"{MANIFEST}: {error}") from error

    def open(self, kind: str, key: str) -> Path:
        """The folder of one artefact, after checking every file against its digest.

        A LARGE file that once matched is not read again while its fingerprint is the same.

        Raises:
            CorruptArtefact: a file is missing or changed.
        """
        folder = self.folder(kind, key)
        fresh: dict[str, list[Any]] = {}
        known: dict[str, list[Any]] | None = None
        for name, expected in self.manifest(kind, key).get("files", {}).items():
            path = folder / name
            try:
                print_ = fingerprint(path)
            except OSError:
                raise CorruptArtefact(folder, f"{name} is missing") from None
            if path.stat().st_size >= LARGE:
                known = self._checked(key) if known is None else known
                if known.get(name) == [expected, *print_]:
                    continue
                if is_settled(print_):  # taken before the file is read: a change meanwhile gives another
                    fresh[name] = [expected, *print_]
            if file_digest(path) != expected:
                raise CorruptArtefact(folder, f"{name} does not match its digest")
        if fresh:
            self._remember(key, {**(known or {}), **fresh})
        return folder

    @property
    def checked(self) -> Path:
        """Where is kept what was found right, and when: what has not changed since is not read again."""
        return self.root / "checked"

    def _checked(self, key: str) -> dict[str, list[Any]]:
        """Files that matched: name → digest, then fingerprint."""
        try:
            return dict(json.loads((self.checked / key).read_text()))
        except (OSError, ValueError):
            return {}

    def _remember(self, key: str, checked: Mapping[str, list[Any]]) -> None:
        # a store that nobody may write to is read in full every time
        with contextlib.suppress(OSError):
            replace_file(self.checked / key, json.dumps(checked).encode())

    def unfinished(self, key: str) -> Path:
        """Where the step of `key` may keep what it has so far; survives a kill, and nothing else reads it."""
        return self.root / "unfinished" / f"{key}.safetensors"

    def discard(self, kind: str, key: str) -> None:
        (self.checked / key).unlink(missing_ok=True)
        shutil.rmtree(self.folder(kind, key), ignore_errors=True)

    @contextmanager
    def write(self, kind: str, key: str, manifest: Mapping[str, Any]) -> Iterator[Path]:
        """A fresh folder to fill; on leaving it is sealed with its manifest and renamed into place.

        `manifest` is read on leaving, so the caller may still add to it inside.
        """
        pending = self.root / "pending" / f"{key}-{uuid.uuid4().hex[:8]}"
        pending.mkdir(parents=True)
        try:
            yield pending
            files, checked = _sealed(pending)
            (pending / MANIFEST).write_text(json.dumps({**manifest, "files": files}, indent=1, sort_keys=True) + "\n")
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
                shutil.rmtree(pending)  # another worker was first with the same result
            _sync(final.parent)
        except BaseException:
            shutil.rmtree(pending, ignore_errors=True)
            raise

    def sweep(self) -> None:
        """Remove what a killed run left half written. Safe only while no other run uses the store."""
        shutil.rmtree(self.root / "pending", ignore_errors=True)
        for cut_short in (self.root / "unfinished").glob(".*.tmp"):
            cut_short.unlink(missing_ok=True)


def _sealed(folder: Path) -> tuple[dict[str, str], dict[str, list[Any]]]:
    """Digests of the files in a folder that is finished, and of the LARGE ones digest and fingerprint."""
    files: dict[str, str] = {}
    checked: dict[str, list[Any]] = {}
    for path in sorted(folder.iterdir()):
        _sync(path)  # what a memory map has yet to write
        print_ = fingerprint(path)
        large = path.stat().st_size >= LARGE
        if large and not is_settled(print_):
            time.sleep(1.5e-9 * _TICK)
        settled = is_settled(print_)
        files[path.name] = file_digest(path)
        if large and settled:
            checked[path.name] = [files[path.name], *print_]
    return files, checked


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
