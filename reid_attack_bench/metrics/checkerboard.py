"""Checkerboard artefacts of transposed convolutions in a perturbation (Odena et al., Distill 2016)."""

from __future__ import annotations

import torch
from torch import Tensor

from reid_attack_bench.errors import BenchError

SMALLEST_SIDE = 16
"""Smallest side in pixels; below it the checkerboard frequencies have no neighbouring bins between them."""

_REACH = 4  # bins on each side of a peak that count as its neighbours, if there is room


def checkerboard_energy(noise: Tensor) -> Tensor:
    """Share of the spectral energy of `noise` in the peaks of checkerboards with period 2 and 4.

    Two up-sampling steps of stride 2 repeat their pattern every 2 and every 4 pixels, so a checkerboard has its energy
    at the frequencies (a/4, b/4) cycles per pixel, a and b from 0 to 3, other than (0, 0). The power spectrum of the
    noise (mean of each colour removed, Hann window, summed over colours) is read at these frequencies, and the
    energy expected from the neighbouring bins is subtracted. Neighbours lie along the rows and columns of the spectrum;
    for peaks on an axis only along that axis, where stripes have their energy.

    Args:
        noise: float N×C×H×W, adversarial minus clean, in any unit; sides of at least 16, cropped to multiples of 4.

    Returns:
        N values up to 1: 1 for a pure checkerboard; 0 in expectation for white noise, near 0 for smooth noise;
        negative if these frequencies have less energy than their neighbours; 0 for zero noise.

    Raises:
        BenchError: a side is too small.
    """
    height, width = (side - side % 4 for side in noise.shape[-2:])
    if min(height, width) < SMALLEST_SIDE:
        raise BenchError(
            f"checkerboard energy needs images of at least {SMALLEST_SIDE}×{SMALLEST_SIDE} pixels, not "
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
    """Energy of the 3×3 bins around (row, column), the width of the main lobe, minus that of 9 neighbouring bins."""
    height, width = power.shape[1:]

    def mean(rows: list[int], columns: list[int]) -> Tensor:
        chosen = power[:, [r % height for r in rows]][:, :, [c % width for c in columns]]
        return chosen.mean(dim=(1, 2))

    def lobe(middle: int) -> list[int]:
        return [middle - 1, middle, middle + 1]

    def neighbours(middle: int, side: int) -> list[int]:
        reach = min(_REACH, side // 4 - 2)
        return [middle + sign * step for sign in (-1, 1) for step in range(2, reach + 1)]

    along_rows = mean(lobe(row), neighbours(column, width))
    along_columns = mean(neighbours(row, height), lobe(column))
    if row == 0:
        expected = along_rows
    elif column == 0:
        expected = along_columns
    else:
        expected = (along_rows + along_columns) / 2
    return 9.0 * (mean(lobe(row), lobe(column)) - expected)
