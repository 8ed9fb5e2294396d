"""Checkpoints that Python 2 wrote, as many of torchreid's published ones are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.victims.checkpoint import TorchreidCheckpoint
from reid_attack_bench.victims.weights import read_weights
from tests.plugins.python2 import save_as_python_2

CASE = Path(__file__).parents[3] / "shared" / "cases" / "07-python2-checkpoint" / "py2_rank1.pth.tar"


@pytest.mark.parametrize("rank1", [0.871, 0.5, float(np.frombuffer(b"\xc3\xa9\xc3\xa9\xc3\xa9\xc3?")[0])])
def test_numbers_and_names_of_python_2_are_read(tmp_path: Path, rank1: float) -> None:
    state = {"layer.weight": torch.rand(3, 2), "layer.count": torch.tensor(7), "half": torch.rand(5).half()}
    path = tmp_path / "old.pth.tar"
    save_as_python_2({"state_dict": state, "rank1": np.float64(rank1), "epoch": 5}, path)
    found = read_weights(path)
    assert list(found) == list(state)
    assert all(torch.equal(found[name], value) for name, value in state.items())
    trusted = read_weights(path, trust_pickle=True)
    assert all(torch.equal(trusted[name], value) for name, value in state.items())


def test_code_in_such_a_file_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "old.pth"
    save_as_python_2({"a": torch.rand(2), "rank1": np.float64(0.871), "evil": Evil()}, path)
    with pytest.raises(BenchError, match=r"is a pickle that needs \S+, so reading it can run code"):
        read_weights(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not CASE.is_file(), reason="the case is not here")
def test_the_case_of_users_is_read_without_trusting_it() -> None:
    victim = TorchreidCheckpoint("osnet_x0_25", CASE)
    assert victim.classifies
