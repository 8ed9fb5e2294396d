"""How much of a perturbation is the grid that transposed convolutions leave in it."""

from __future__ import annotations

import torch
from torch import Tensor

from reid_attack_bench.errors import BenchError

SMALLEST_SIDE = 16
"""Below it the grid's frequencies have no neighbours between them."""

_REACH = 4  # bins on each side of a peak that count as its neighbourhood, as far as there is room


def checkerboard_energy(noise: Tensor) -> Tensor:
    """Share of the noise's spectral energy that stands out at the frequencies of a grid of period 2 and 4.

    Two up-sampling steps of stride 2 repeat their pattern every 2 and every 4 pixels, so a grid lies at the
    frequencies (a/4, b/4) cycles per pixel, a and b from 0 to 3, other than (0, 0). The power spectrum of the noise
    (each colour less its mean, Hann window, summed over colours) is read there, and what the bins next to each
    peak would give is taken off. Neighbours lie along the rows and columns of the spectrum, and along the axis alone
    for peaks on an axis, where stripes have their energy.

    Args:
        noise: float N×C×H×W, adversarial minus clean, in any unit; sides from 16. What is over a multiple of 4 is cut.

    Returns:
        N values up to 1: 1 for a pure grid; 0 in expectation for white noise, near 0 for smooth noise; negative where
        there is less at these frequencies than beside them. 0 for no noise at all.

    Raises:
        BenchError: a side is too small.
    """
    height, width = (side - side % 4 for side in noise.shape[-2:])
    if min(height, width) < SMALLEST_SIDE:
        raise BenchError(
            f"grid energy needs images of at least {SMALLEST_SIDE}×{SMALLEST_SIDE} pixels, not "
            f"{noise.shape[-2]}×{noise.shape[-1]}"
        )
    noise = noise[..., :height, :width].double()
    noise = noise - noise.mean(dim=(-2, -1), keepdim=True)
    window = torch.outer(*(torch.hann_window(n, dtype=noise.dtype, device=noise.device) for n in (height, width)))
    power = torch.fft.fft2(noise * window).abs().square().sum(dim=1)  # N×H×W
    excess = torch.zeros_like(power[:, 0, 0])
    for a in range(4):
        for b in range(4):
            if a or b:
                excess = excess + _excess(power, a * height // 4, b * width // 4)
    total = power.sum(dim=(1, 2))
    return torch.where(total > 0, excess / total.clamp_min(torch.finfo(total.dtype).tiny), torch.zeros_like(total))


def _excess(power: Tensor, row: int, column: int) -> Tensor:
    """Energy of the 3×3 bins around (row, column), the width of the window's main lobe, over 9 bins beside them."""
    height, width = power.shape[1:]

    def mean(rows: list[int], columns: list[int]) -> Tensor:
        chosen = power[:, [r % height for r in rows]][:, :, [c % width for c in columns]]
        return chosen.mean(dim=(1, 2))

    def lobe(middle: int) -> list[int]:
        return [middle - 1, middle, middle + 1]

    def beside(middle: int, side: int) -> list[int]:
        reach = min(_REACH, side // 4 - 2)
        return [middle + sign * step for sign in (-1, 1) for step in range(2, reach + 1)]

    along_rows = mean(lobe(row), beside(column, width))
    along_columns = mean(beside(row, height), lobe(column))
    if row == 0:
        expected = along_rows
    elif column == 0:
        expected = along_columns
    else:
        expected = (along_rows + along_columns) / 2
    return 9.0 * (mean(lobe(row), lobe(column)) - expected)
