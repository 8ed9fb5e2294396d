"""Devices, workers, and settings of torch for a run."""

from __future__ import annotations

import ctypes
import os

import torch

from reid_attack_bench.errors import BenchError, nearest

_DEVICES = ("auto", "cpu", "cuda", "cuda:0")


def stay_forkable(device: str, workers: int | None) -> None:
    """Keep torch to one thread here if steps will run in forked processes.

    A ready victim is made in this process: threads that torch starts for it are not there after a fork, and a worker
    of two threads or more would wait for them forever.
    """
    if (workers or default_workers(resolve_device(device))) > 1:
        torch.set_num_threads(1)


def resolve_device(name: str) -> torch.device:
    """The device called `name`: "cpu", "cuda", "cuda:N", or "auto" for a GPU if there is one.

    Raises:
        BenchError: not one of these names, or no such GPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device(name)
    kind, colon, index = name.partition(":")
    if kind == "mps":
        raise BenchError(f"device {name}: Apple GPUs lack the deterministic kernels that a run needs; use cpu")
    if kind != "cuda" or (colon and not index.isdecimal()):
        raise BenchError(f"device {name}: expected auto, cpu, cuda or cuda:N: {nearest(name, _DEVICES)}")
    if not torch.cuda.is_available():
        raise BenchError(f"device {name}: torch finds no GPU; use cpu, or install a CUDA build of torch and a driver")
    count = torch.cuda.device_count()
    if index and int(index) >= count:
        raise BenchError(f"device {name}: torch finds {count} GPU{'s' * (count > 1)}, cuda:0 to cuda:{count - 1}")
    return torch.device(name)


def default_workers(device: torch.device) -> int:
    """How many steps to do at once: one on a GPU, else a core each as far as 3 GiB of memory each allow, at most 8."""
    if device.type == "cuda":
        return 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return max(1, min(len(os.sched_getaffinity(0)), int(memory / 3), 8))


_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # <malloc.h>


def use_deterministic_kernels() -> None:
    """Ask torch and cuBLAS for deterministic kernels; an operation without one warns instead of failing."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # a guard against reading what was never written, which costs a pass over memory
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks instead of giving them back: a third off the training of small networks on a CPU.

    Elsewhere it does nothing. Processes forked later inherit it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((_M_MMAP_THRESHOLD, 2**30), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**28)):
            mallopt(parameter, value)
