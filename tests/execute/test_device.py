"""Devices by name, cores and memory on any system, and settings that are restored."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute import device
from reid_attack_bench.execute.device import (
    cpu_count,
    default_threads,
    default_workers,
    memory_size,
    resolve_device,
    resolve_devices,
    settings_for_a_run,
)

CPU = torch.device("cpu")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("auto", ["cuda:0", "cuda:1"]),
        ("cpu", ["cpu"]),
        ("cuda", ["cuda:0", "cuda:1"]),
        ("cuda:1", ["cuda:1"]),
        ("cuda:1,0", ["cuda:1", "cuda:0"]),
    ],
)
@pytest.mark.usefixtures("two_gpus")
def test_devices_are_found_by_name(name: str, found: list[str]) -> None:
    assert [str(each) for each in resolve_devices(name)] == found
    assert resolve_device(name) == torch.device(found[0])


def test_a_single_gpu_has_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_devices("auto") == resolve_devices("cuda") == (torch.device("cuda"),)
    with pytest.raises(BenchError, match=r"finds 1 GPU, cuda:0$"):
        resolve_devices("cuda:1")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cuda:2", "finds 2 GPUs, cuda:0 to cuda:1"),
        ("cudda", "did you mean 'cuda'"),
        ("cuda:x", "expected auto, cpu, cuda or cuda:N"),
        ("cuda:", "expected auto, cpu, cuda or cuda:N"),
        ("cuda:0,", "expected auto, cpu, cuda or cuda:N"),
        ("auto:0", "expected auto, cpu, cuda or cuda:N"),
        ("cuda:0,2", "finds 2 GPUs"),
        ("cuda:0,0", "a GPU is named twice"),
        ("mps", "Apple GPUs lack the deterministic kernels"),
    ],
)
@pytest.mark.usefixtures("two_gpus")
def test_a_device_that_does_not_exist_is_an_error(name: str, says: str) -> None:
    with pytest.raises(BenchError, match=says):
        resolve_device(name)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_an_error() -> None:
    assert resolve_device("auto") == CPU
    for name in ("cuda", "cuda:0"):
        with pytest.raises(BenchError, match=f"device {name}: torch finds no GPU; use cpu"):
            resolve_device(name)


def test_workers_follow_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cpu_count", lambda: 16)
    monkeypatch.setattr(device, "memory_size", lambda: 13.0)
    assert default_workers(CPU) == 4
    assert default_workers(torch.device("cuda")) == 1
    monkeypatch.setattr(device, "memory_size", lambda: 1.0)
    assert default_workers(CPU) == 1
    monkeypatch.setattr(device, "memory_size", lambda: 1000.0)
    assert default_workers(CPU) == 8
    assert default_workers(CPU, threads=5) == 3
    assert default_workers(CPU, threads=32) == 1


def test_threads_follow_cores_and_gpus_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cpu_count", lambda: 16)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert default_threads(CPU) == 1
    assert default_threads(torch.device("cuda", 1)) == 5
    monkeypatch.setattr(device, "cpu_count", lambda: 2)
    assert default_threads(torch.device("cuda")) == 1


def test_cores_and_memory_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu_count() >= 1
    assert memory_size() > 0
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert cpu_count() == 3

    def unknown(name: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", unknown)
    assert memory_size() == 8.0


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_run_leaves_settings_and_random_states_as_they_were(monkeypatch, deterministic: bool) -> None:
    def state() -> tuple:
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
            torch.get_num_threads(),
            cv2.getNumThreads(),
            os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
            torch.get_rng_state().tolist(),
            str(np.random.get_state()),
            random.getstate(),
        )

    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    torch.use_deterministic_algorithms(deterministic)
    try:
        before = state()
        with contextlib.suppress(ZeroDivisionError), settings_for_a_run(threads=3):
            assert torch.get_num_threads() == cv2.getNumThreads() == 3
            assert torch.are_deterministic_algorithms_enabled()
            assert torch.is_deterministic_algorithms_warn_only_enabled()
            torch.manual_seed(1)
            np.random.seed(1)
            random.seed(1)
            raise ZeroDivisionError
        assert state() == before
    finally:
        torch.use_deterministic_algorithms(False)


GROWS = """
import torch
from reid_attack_bench.execute.device import keep_freed_memory

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**10

{setting}
before, stays = resident(), []
for i in range(1, 121):
    block = torch.ones(i * 2**19)  # 2 MiB more each time
    stays.append(torch.ones(1000))  # so that no two freed blocks join
print(resident() - before)
"""


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_what_is_kept_of_growing_blocks_is_bounded() -> None:
    def peak(setting: str) -> float:
        done = subprocess.run(
            [sys.executable, "-c", GROWS.format(setting=setting)], check=True, capture_output=True, text=True
        )
        return float(done.stdout)

    assert peak("keep_freed_memory()") < peak("") + 600  # MiB; it was 14 GiB with blocks up to 256 MiB kept
