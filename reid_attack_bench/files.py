"""Digests of files and values, and atomic writes."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """`value` as JSON types: tuples become lists, sets sorted lists, and other objects (paths) text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(v) for v in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def expanded(path: str | Path) -> Path:
    """A path with ~ expanded; as it is where there is no such home folder, as in a container without users."""
    return Path(os.path.expanduser(path))


TICK = 20_000_000
"""Nanoseconds. Two changes of a file within one tick of the kernel's clock may leave it the same times."""


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal configurations give equal text."""
    return _CANONICAL.encode(value)


def digest_of(value: Any) -> str:
    """sha256 of the canonical JSON, as 32 hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """sha256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(stream)


def fingerprint(path: Path) -> list[int]:
    """Inode, size, mtime and ctime (nanoseconds) of a file. Programs can set mtime, but not ctime."""
    about = path.stat()
    return [about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns]


def is_settled(stat: list[int]) -> bool:
    """Whether the fingerprint `stat` is older than a tick, so that a change of the file would change it."""
    return time.time_ns() - max(stat[2:]) > TICK


def _sha256(stream: Any) -> str:  # Python 3.10 has no hashlib.file_digest
    total = hashlib.sha256()
    while block := stream.read(1 << 20):
        total.update(block)
    return total.hexdigest()


def replace_file(path: Path, content: bytes) -> Path:
    """Write `content` to `path` atomically (temporary file, then rename); returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
