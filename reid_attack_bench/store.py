"""The store: artefacts addressed by what made them. Written whole or not at all, checked when read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid_attack_bench.errors import BenchError

MANIFEST = "manifest.json"


class CorruptArtefact(BenchError):  # noqa: N818  the name says what it is
    """A stored file is not what its manifest says."""

    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(f"stored artefact {folder} is corrupt ({why})")
        self.folder = folder


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal configurations give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_of(value: Any) -> str:
    """sha256 of the canonical JSON, as 32 hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(stream)


def _sha256(stream: Any) -> str:  # Python 3.10 has no hashlib.file_digest
    total = hashlib.sha256()
    while block := stream.read(1 << 20):
        total.update(block)
    return total.hexdigest()


def replace_file(path: Path, content: bytes) -> Path:
    """Write a file under a temporary name, then rename it, so that nobody ever reads half of it; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


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

        Raises:
            CorruptArtefact: a file is missing or changed.
        """
        folder = self.folder(kind, key)
        for name, expected in self.manifest(kind, key).get("files", {}).items():
            path = folder / name
            if not path.is_file():
                raise CorruptArtefact(folder, f"{name} is missing")
            if file_digest(path) != expected:
                raise CorruptArtefact(folder, f"{name} does not match its digest")
        return folder

    def unfinished(self, key: str) -> Path:
        """Where the step of `key` may keep what it has so far; survives a kill, and nothing else reads it."""
        return self.root / "unfinished" / f"{key}.safetensors"

    def discard(self, kind: str, key: str) -> None:
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
            files = {p.name: file_digest(p) for p in sorted(pending.iterdir())}
            (pending / MANIFEST).write_text(json.dumps({**manifest, "files": files}, indent=1, sort_keys=True) + "\n")
            for path in pending.iterdir():
                _sync(path)
            _sync(pending)
            final = self.folder(kind, key)
            final.parent.mkdir(parents=True, exist_ok=True)
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


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
