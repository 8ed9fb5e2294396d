"""Grid energy: what it finds in noise whose grid is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics.checkerboard import checkerboard_energy


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def smooth(noise: Tensor, times: int = 3) -> Tensor:
    for _ in range(times):
        noise = functional.avg_pool2d(noise, 5, stride=1, padding=2, count_include_pad=False)
    return noise


@given(
    seed=st.integers(0, 2**31),
    size=st.sampled_from([(64, 32), (128, 64), (16, 16), (130, 67)]),
    period=st.sampled_from([2, 4]),
)
@settings(max_examples=25, deadline=None)
def test_a_pure_grid_is_all_grid(seed: int, size: tuple[int, int], period: int) -> None:
    tile = draw(seed, 2, 3, period, period)
    tile[..., 0, 0] += 3.0  # never constant
    pattern = tile.repeat(1, 1, size[0] // period + 1, size[1] // period + 1)[..., : size[0], : size[1]]
    assert checkerboard_energy(0.01 * pattern).tolist() == pytest.approx([1.0, 1.0], abs=1e-9)


@pytest.mark.parametrize("size", [(128, 64), (32, 16)])
def test_white_noise_has_none_in_expectation(size: tuple[int, int]) -> None:
    values = checkerboard_energy(draw(0, 400, 3, *size)).numpy()
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean()) < 4 * error
    assert error < 0.01
    assert (values < 0).any(), "it is signed: clamped at zero it would call noise a grid"


@pytest.mark.parametrize("kind", ["blurred", "ramp", "stripes", "patch"])
def test_smooth_noise_and_stripes_have_next_to_none(kind: str) -> None:
    """What shows no grid must not be called one, whatever its edges and axes do to the spectrum."""
    if kind == "blurred":
        noise = smooth(draw(1, 50, 3, 128, 64))
    elif kind == "ramp":
        noise = torch.linspace(-1, 1, 128).view(1, 1, 128, 1) + torch.linspace(-2, 1, 64)
        noise = noise.expand(1, 3, 128, 64)
    elif kind == "stripes":
        noise = draw(2, 50, 3, 1, 64).expand(50, 3, 128, 64)  # all energy on one axis of the spectrum
    else:
        noise = torch.zeros(1, 3, 128, 64)
        noise[..., 37:81, 13:42] = 1.0
    assert abs(checkerboard_energy(noise).mean().item()) < (0.03 if kind == "stripes" else 0.005)


def test_more_grid_gives_more() -> None:
    """A grid whose strength follows the picture, as a generator's does, over smooth noise."""
    base = smooth(draw(3, 20, 3, 128, 64))
    base = base / base.std()
    checker = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(64, 32)
    strength = smooth(draw(4, 20, 1, 128, 64)).abs()
    grid = checker * strength
    grid = grid / grid.std()
    shares = [checkerboard_energy(base + weight * grid).mean().item() for weight in (0.0, 0.3, 1.0, 3.0)]
    assert shares == sorted(shares)
    assert abs(shares[0]) < 0.01
    assert shares[3] > 0.3


def test_transposed_convolutions_leave_it_and_resized_ones_do_not() -> None:
    torch.manual_seed(0)
    features = smooth(draw(5, 8, 8, 32, 16), 1)
    transposed = nn.Sequential(
        *(nn.ConvTranspose2d(8, 8, 3, 2, 1, output_padding=1) for _ in range(2)), nn.Conv2d(8, 3, 7, padding=3)
    )
    resized = nn.Sequential(
        *(layer for _ in range(2) for layer in (nn.Upsample(scale_factor=2), nn.Conv2d(8, 8, 3, padding=1))),
        nn.Conv2d(8, 3, 7, padding=3),
    )
    with torch.no_grad():
        assert checkerboard_energy(transposed(features)).mean() > 2 * abs(checkerboard_energy(resized(features)).mean())


def test_it_does_not_depend_on_unit_or_mean_colour_and_none_is_zero() -> None:
    noise = draw(6, 3, 3, 64, 32)
    torch.testing.assert_close(checkerboard_energy(noise), checkerboard_energy(7 * noise + 2))
    assert checkerboard_energy(torch.zeros(2, 3, 32, 32)).tolist() == [0.0, 0.0]
    with pytest.raises(BenchError, match="at least 16×16 pixels, not 32×15"):
        checkerboard_energy(torch.zeros(1, 3, 32, 15))
