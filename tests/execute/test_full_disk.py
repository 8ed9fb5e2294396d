"""A full disk ends a run with one line: space for images is reserved before anything is written to them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute.executor import execute
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.steps.artefacts import new_images
from reid_attack_bench.store import Store

SHAPE = (40, 64, 32, 3)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except OSError:
        pytest.skip("no command mount")
    if done.returncode:
        pytest.skip("this user cannot mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


RUN = """
import sys, torch
from pathlib import Path
from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute.executor import execute
from reid_attack_bench.store import Store
from tests.execute.conftest import small
try:
    execute(small(), Store(Path(sys.argv[1])), torch.device("cpu"), workers=int(sys.argv[2]))
except BenchError as error:
    sys.exit(f"said: {error}")
"""


@pytest.mark.e2e
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_line_and_no_bus_error(small_disk: Path, workers: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(small_disk / "store"), str(workers)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, f"{done.returncode}: {done.stderr}"
    assert f"said: the disk of {small_disk / 'store'} is full" in done.stderr
    assert "run the same command again" in done.stderr


def test_space_that_cannot_be_reserved_is_a_full_disk(
    small_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(BenchError, match=r"the disk of .* is full .* at step 'data plaza'"):
        execute(small_plan, Store(tmp_path), torch.device("cpu"))


@pytest.mark.parametrize("way", ["reserved", "refused", "missing"])
def test_new_images_take_their_space_and_are_zero(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    if way == "refused":
        monkeypatch.setattr(os, "posix_fallocate", refused, raising=False)
    if way == "missing":
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    images = new_images(tmp_path, "query", SHAPE)
    assert not images.any()
    path = tmp_path / "query.npy"
    assert path.stat().st_blocks * 512 >= images.nbytes
    images[:] = 7
    images.flush()  # type: ignore[attr-defined]
    assert np.array_equal(np.load(path), np.full(SHAPE, 7, np.uint8))
