"""Devices, cores and memory, and the process-wide settings of a run."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import sys
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch

from reid_attack_bench.errors import BenchError, nearest

_DEVICES = ("auto", "cpu", "cuda", "cuda:0")
MEMORY_PER_WORKER = 3.0
"""Memory that a step may need, in GiB."""

_MEMORY_IF_UNKNOWN = 8.0  # GiB
_MOST_WORKERS = 8
_GLIBC = sys.platform == "linux"


def resolve_device(name: str) -> torch.device:
    """The first of `resolve_devices`, for work that uses one device."""
    return resolve_devices(name)[0]


def resolve_devices(name: str) -> tuple[torch.device, ...]:
    """Devices by name: "cpu", "cuda" for all visible GPUs, "cuda:N,M", or "auto" for the GPUs if there are any.

    A single GPU has no number, so that "cuda" and "auto" are the same on every machine.

    Raises:
        BenchError: an unknown name, no such GPU, or one that is named twice.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return (torch.device("cpu"),)
    kind, colon, given = name.partition(":")
    if kind == "mps":
        raise BenchError(f"device {name}: Apple GPUs lack the deterministic kernels that a run needs; use cpu")
    numbers = given.split(",")
    if name != "auto" and (kind != "cuda" or (colon and not all(number.isdecimal() for number in numbers))):
        raise BenchError(f"device {name}: expected auto, cpu, cuda or cuda:N,M: {nearest(name, _DEVICES)}")
    if not torch.cuda.is_available():
        raise BenchError(f"device {name}: torch finds no GPU; use cpu, or install a CUDA build of torch and a driver")
    count = torch.cuda.device_count()
    if not colon:
        return tuple(torch.device("cuda", i) for i in range(count)) if count > 1 else (torch.device("cuda"),)
    wrong = [number for number in numbers if int(number) >= count]
    if wrong:
        known = f"cuda:0 to cuda:{count - 1}" if count > 1 else "cuda:0"
        raise BenchError(f"device {name}: torch finds {count} GPU{'s' * (count > 1)}, {known}")
    if len(set(map(int, numbers))) < len(numbers):
        raise BenchError(f"device {name}: a GPU is named twice; --workers says how many steps run at once")
    return tuple(torch.device("cuda", int(number)) for number in numbers)


Devices = torch.device | Sequence[torch.device]


def each_of(device: Devices) -> tuple[torch.device, ...]:
    return (device,) if isinstance(device, torch.device) else tuple(device)


def cpu_count() -> int:
    """Number of cores available to this process; all cores if the system does not tell (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_size() -> float:
    """Memory of the machine in GiB; 8 if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, OSError, ValueError):
        return _MEMORY_IF_UNKNOWN


def default_threads(device: torch.device) -> int:
    """Threads of a step: one on a CPU; with a GPU its share of the cores, which is that of all visible GPUs.

    Rounding depends on it, so it does not follow the number of workers.
    """
    return max(1, cpu_count() // torch.cuda.device_count()) if device.type == "cuda" else 1


def default_workers(device: torch.device, threads: int = 1, memory: float = MEMORY_PER_WORKER) -> int:
    """Steps to run at once: one per GPU, otherwise one per so many cores and GiB of memory, at most 8."""
    if device.type == "cuda":
        return 1
    return max(1, min(cpu_count() // threads, int(memory_size() / memory), _MOST_WORKERS))


def use_deterministic_kernels() -> None:
    """Ask torch and cuBLAS for deterministic kernels; an operation without one warns instead of failing."""
    os.environ.setdefault(_CUBLAS, ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # a debugging aid that costs a pass over the memory of each new tensor
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"

# parameters of mallopt in <malloc.h>: mmap threshold, trim threshold, top pad
_KEEP = {-3: 2**25, -1: 2**29, -2: 2**26}
_USUAL = {-3: 2**25, -1: 2**26, -2: 2**17}  # the values that glibc adapts to after large blocks are freed


def keep_freed_memory() -> None:
    """Let glibc keep up to half a GiB of freed memory instead of returning it to the system. No effect without glibc.

    Training a small network on a CPU takes up to a sixth less processor time. Blocks above 32 MiB are always returned:
    freed ones that are kept do not fit those that grow, and a process would keep all that it ever used. Processes
    forked later inherit the setting.
    """
    _set_malloc(_KEEP)


def _set_malloc(parameters: dict[int, int]) -> None:
    library = ctypes.CDLL(None) if _GLIBC else None
    if hasattr(library, "mallopt"):
        for parameter, value in parameters.items():
            library.mallopt(parameter, value)  # type: ignore[union-attr]


def settings_of_a_worker(threads: int) -> None:
    """Settings of a process that does nothing but run steps, with this number of threads of torch and OpenCV."""
    use_deterministic_kernels()
    keep_freed_memory()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


@contextlib.contextmanager
def settings_for_a_run(threads: int) -> Iterator[None]:
    """`settings_of_a_worker`; on exit, restore settings and random states.

    So a notebook draws the same random numbers after a run as without it.
    """
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    cublas = os.environ.get(_CUBLAS)
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    before = torch.get_num_threads(), cv2.getNumThreads()
    settings_of_a_worker(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
        _set_malloc(_USUAL)
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        if cublas is None:
            os.environ.pop(_CUBLAS, None)
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        elif torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(torch.initial_seed())  # as torch would set on first use


def stop_threads() -> bool:
    """Stop the thread pools of OpenMP and OpenCV, so that a fork is safe; they restart when needed.

    A forked process that waits for a thread of its parent hangs. Returns False if OpenMP does not support it.
    """
    count = cv2.getNumThreads()
    cv2.setNumThreads(1)  # ends OpenCV's threads at once
    cv2.setNumThreads(count)
    hard = 2  # omp_pause_hard in <omp.h>
    pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)
    return pause is not None and pause(hard) == 0
