"""The embedding in an output: parts are normalised one by one; several axes are never flattened in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from reid_attack_bench.errors import BenchError, VictimError
from reid_attack_bench.victims.exported import TorchScriptModel
from reid_attack_bench.victims.exported.readout import Readout
from tests.victims.exported.networks import SIZE, Colours, Parts, images, scripted

PLAIN = {"input_size": SIZE, "mean": (0, 0, 0), "std": (1, 1, 1)}


def lightmbn(network: Parts, batch: torch.Tensor) -> np.ndarray:
    """Test features of https://github.com/jixunbo/LightMBN: flip-sum, each part divided by its norm, joined."""
    with torch.no_grad():
        total = (network(batch) + network(torch.from_numpy(batch.numpy()[..., ::-1].copy()))).numpy()
    return np.stack([row / np.sqrt((row**2).sum(0)) for row in total]).reshape(len(batch), -1)


def test_parts_as_lightmbn_compares_them(tmp_path: Path) -> None:
    network, batch = Parts(), images()
    file = scripted(network, tmp_path / "parts.ts")
    for axis, transpose in ((2, False), (1, True)):
        victim = TorchScriptModel(file, **PLAIN, flip="sum", normalise="parts", parts_axis=axis, trust_code=True)
        found = victim.embed(batch).detach().numpy()
        if transpose:  # the same file, read as N×P×D: 8 parts of 7 values
            np.testing.assert_allclose(np.linalg.norm(found.reshape(3, 8, 7), axis=2), 1, rtol=1e-5)
        else:
            np.testing.assert_allclose(found, lightmbn(network, batch), atol=1e-6)
    flattened = (
        TorchScriptModel(file, **PLAIN, flip=True, pool="flatten", trust_code=True).embed(batch).detach().numpy()
    )
    share = (flattened.reshape(3, 8, 7) ** 2).sum(1) / (flattened**2).sum(1, keepdims=True)
    assert share[:, 2].min() > 0.9, "without normalisation one part decides alone"


@pytest.mark.parametrize("what", [False, True, "mean", "sum"])
def test_test_time_flip(tmp_path: Path, what) -> None:
    batch = images()
    victim = TorchScriptModel(scripted(Colours(), tmp_path / "c.ts"), **PLAIN, flip=what, trust_code=True)
    cells = batch.view(3, 3, 4, 16, 2, 16).mean((3, 5))
    expected = cells if not what else (cells + cells.flip(3)) / (1 if what == "sum" else 2)
    torch.testing.assert_close(victim.embed(batch), expected.flatten(1), atol=1e-6, rtol=0)


def test_the_whole_is_normalised(tmp_path: Path) -> None:
    found = TorchScriptModel(scripted(Colours(), tmp_path / "c.ts"), **PLAIN, normalise="whole", trust_code=True).embed(
        images()
    )
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))


def test_several_axes_want_a_setting(tmp_path: Path) -> None:
    file = scripted(Parts(), tmp_path / "parts.ts")
    with pytest.raises(
        VictimError,
        match=r"^parts.ts has shape 3×8×7, more than one axis .*: set normalise=parts with parts_axis=2 for 7 parts "
        r".*, or pool=mean, max, cls \(the first token\) or flatten$",
    ):
        TorchScriptModel(file, **PLAIN, trust_code=True).embed(images())
    with pytest.raises(VictimError, match="has shape 3×8×7: it has no axis of parts 3"):
        TorchScriptModel(file, **PLAIN, normalise="parts", parts_axis=3, trust_code=True).embed(images())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"normalise": "parts"}, "belong together: parts_axis=2 for an output N×D×P"),
        ({"parts_axis": 2}, "belong together"),
        ({"normalise": "parts", "parts_axis": 1, "pool": "mean"}, "pool=mean has nothing to pool"),
    ],
)
def test_settings_that_contradict_each_other(settings, says: str) -> None:
    with pytest.raises(BenchError, match=says):
        Readout(None, **settings)


def test_a_part_of_zeros_has_a_finite_gradient() -> None:
    values = torch.zeros(1, 4, 2, requires_grad=True)
    Readout(None, "", "parts", 2)(values).sum().backward()
    assert values.grad is not None
    assert values.grad.isfinite().all()
