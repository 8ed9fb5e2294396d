"""The memory of a step, and a limit on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psutil
from pydantic import ByteSize, TypeAdapter, ValidationError

from reid_attack_bench.errors import BenchError

LOOK = 0.1
"""Seconds between two looks at the memory of a process that has a limit."""


def read_limit(text: str) -> int:
    """Bytes of "4GiB", "500MB" and the like.

    Raises:
        BenchError: not an amount of memory.
    """
    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError as error:
        raise BenchError(f"memory limit {text}: expected an amount such as 4GiB or 500MiB") from error


def memory_of(pid: int) -> int:
    """Bytes of memory of a process; 0 if it ended.

    What is mapped from files, such as stored images, is left out where the system tells it apart (Linux). What it
    started is not counted.
    """
    try:
        about = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    return int(about.rss - getattr(about, "shared", 0))


def why_over(pid: int, limit: int | None) -> str:
    """Reason for which the process is to be ended; empty if its memory is within the limit."""
    used = memory_of(pid) if limit is not None else 0
    if limit is None or used <= limit:
        return ""
    return f"it passed the memory limit of {_gib(limit)} ({_gib(used)}): raise --memory-limit, or lower batch_size"


def watch(pid: int, limit: int | None, over: Callable[[str], None]) -> None:
    """Call `over` with the reason once the process is over its limit, from a thread of this process."""

    def look() -> None:
        while not (reason := why_over(pid, limit)):
            time.sleep(LOOK)
        over(reason)

    if limit is not None:
        threading.Thread(target=look, daemon=True).start()


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
