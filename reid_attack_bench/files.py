"""Digests of files and values, and files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """Settings as JSON has them: tuples become lists, paths text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(v) for v in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


_TICK = 20_000_000  # nanoseconds: a change within one tick of the kernel's clock leaves the times of a file as they are


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal configurations give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_of(value: Any) -> str:
    """sha256 of the canonical JSON, as 32 hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(stream)


def fingerprint(path: Path) -> list[int]:
    """What the system changes whenever it changes a file: inode, size, and the times of its content and of itself.

    No program can set the last of them, unlike the one before it.
    """
    about = path.stat()
    return [about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns]


def is_settled(print_: list[int]) -> bool:
    """Whether another change would give the file another fingerprint than this one."""
    return time.time_ns() - max(print_[2:]) > _TICK


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
