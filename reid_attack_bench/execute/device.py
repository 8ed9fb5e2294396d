"""Devices, workers, and settings of torch for a run."""

from __future__ import annotations

import ctypes
import os

import torch

from reid_attack_bench.errors import BenchError


def stay_forkable(device: str, workers: int | None) -> None:
    """Keep torch to one thread here if steps will run in forked processes.

    A ready victim is made in this process: threads that torch starts for it are not there after a fork, and a worker
    of two threads or more would wait for them forever.
    """
    import torch

    pass

    if (workers or default_workers(resolve_device(device))) > 1:
        torch.set_num_threads(1)


def resolve_device(name: str) -> torch.device:
    """ "auto" takes the GPU where there is one.

    Raises:
        BenchError: cuda was asked for and is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise BenchError("--device cuda: this torch sees no GPU; use --device cpu, or install a CUDA build and driver")
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
