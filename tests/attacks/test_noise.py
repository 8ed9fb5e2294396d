"""Random controls: blocks, tints and corners of the ball."""

from __future__ import annotations

import pytest
import torch

from reid_attack_bench.attacks.noise import Noise
from reid_attack_bench.contracts import Batch, ThreatModel
from reid_attack_bench.errors import BenchError

CLEAN = torch.full((4, 3, 32, 16), 128 / 255)


def change(attack: Noise, threat: ThreatModel | None = None, seed: int = 0) -> torch.Tensor:
    """The change in 1/255, N×3×H×W."""
    threat = threat or ThreatModel(8)
    made = attack.craft(None, Batch(CLEAN), threat, torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    return (made - CLEAN) * 255


@pytest.mark.parametrize("blocks", [(1, 1), (2, 1), (4, 2), (16, 8), (32, 16), (5, 3)])
@pytest.mark.parametrize("values", ["uniform", "corner"])
def test_each_block_has_one_draw_per_colour(blocks: tuple[int, int], values: str) -> None:
    found = change(Noise(blocks, values))
    assert found.abs().max() <= 8 + 1e-4
    rows, columns = torch.arange(32) * blocks[0] // 32, torch.arange(16) * blocks[1] // 16
    drawn = []
    for row in range(blocks[0]):
        for column in range(blocks[1]):
            part = found[:, :, rows == row][..., columns == column].flatten(2)
            assert part.numel()
            assert torch.allclose(part, part[..., :1])
            drawn.append(part[..., 0])
    values_of_blocks = torch.stack(drawn)
    if values == "corner":
        assert torch.allclose(values_of_blocks.abs(), torch.tensor(8.0), atol=1e-4)
        assert (values_of_blocks > 0).float().mean().sub(0.5).abs() < 0.45
    else:
        assert len(values_of_blocks.unique()) > 0.99 * values_of_blocks.numel(), "rounded after the sum"


def test_corners_of_every_pixel_and_the_default() -> None:
    assert torch.allclose(change(Noise(values="corner")).abs(), torch.tensor(8.0), atol=1e-4)
    assert torch.equal(change(Noise()), change(Noise(None, "uniform")))
    assert not torch.equal(change(Noise((4, 2))), change(Noise((4, 2)), seed=1))


def test_a_pixel_budget_holds() -> None:
    found = change(Noise((4, 2), "corner"), ThreatModel(8, pixels=20))
    assert (found.abs().amax(dim=1) > 0.5).sum(dim=(1, 2)).eq(20).all()


def test_wrong_settings() -> None:
    with pytest.raises(BenchError, match="blocks 64×8 are more than the pixels of 32×16 images"):
        change(Noise((64, 8)))
    for wrong in ({"blocks": (0, 1)}, {"values": "sign"}):
        with pytest.raises(BenchError, match="noise"):
            Noise(**wrong)  # type: ignore[arg-type]
