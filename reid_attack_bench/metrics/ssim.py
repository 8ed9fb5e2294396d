"""SSIM and MS-SSIM (Wang et al., 2004 and 2003)."""

from __future__ import annotations

import torch
from pytorch_msssim import ssim as _library_ssim
from pytorch_msssim.ssim import _fspecial_gauss_1d, _ssim
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.errors import BenchError

WINDOW = 11

SIGMA = 1.5

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the five scales of MS-SSIM, finest first (Wang, Simoncelli and Bovik, Asilomar 2003)."""


def ssim(clean: Tensor, adversarial: Tensor) -> Tensor:
    """Structural similarity per image, N values in [−1, 1], differentiable (Wang et al., TIP 2004).

    Gaussian window of 11 with sigma 1.5, K = (0.01, 0.03), no padding, mean over R, G, B.

    Args:
        clean, adversarial: float RGB N×3×H×W in [0, 1], sides of at least 11.

    Raises:
        BenchError: shapes differ, or a side is smaller than the window.
    """
    check_pair(clean, adversarial)
    similarity: Tensor = _library_ssim(
        clean, adversarial, data_range=1.0, size_average=False, win_size=WINDOW, win_sigma=SIGMA
    )
    return similarity


def scale_count(height: int, width: int) -> int:
    """Number of scales of MS-SSIM at this size: the largest, up to 5, with min(height, width) > 10·2^(scales − 1).

    5 from 161 pixels on the shorter side, 4 at 256×128, 3 at 128×64.
    """
    side = min(height, width)
    return max((s for s in range(1, len(SCALE_WEIGHTS) + 1) if side > (WINDOW - 1) * 2 ** (s - 1)), default=1)


def ms_ssim(clean: Tensor, adversarial: Tensor) -> Tensor:
    """Multi-scale structural similarity per image, N values in [0, 1], differentiable (Wang et al., Asilomar 2003).

    Product of contrast-structure at every scale except the coarsest and full SSIM, with luminance, at the coarsest;
    negative terms are clamped at 0 and each term is raised to its weight. Mean over R, G, B.

    The published definition has five scales, which do not fit pedestrian crops: a window of 11 fits four at 256×128
    and three at 128×64. So as many scales are used as fit (`scale_count`), with the first of the published weights
    renormalised to sum to one. From 161 pixels on the result equals pytorch_msssim.ms_ssim. The gradient of a
    clamped term is 0, never NaN.

    Args:
        clean, adversarial: float RGB N×3×H×W in [0, 1], sides of at least 11.

    Raises:
        BenchError: shapes differ, or a side is smaller than the window.
    """
    return ssim_and_ms_ssim(clean, adversarial)[1]


def ssim_and_ms_ssim(clean: Tensor, adversarial: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and MS-SSIM in one pass: SSIM is computed at the finest scale of MS-SSIM."""
    check_pair(clean, adversarial)
    scales = scale_count(*clean.shape[-2:])
    weights = clean.new_tensor(SCALE_WEIGHTS[:scales])
    if scales < len(SCALE_WEIGHTS):
        weights = weights / weights.sum()
    window = _fspecial_gauss_1d(WINDOW, SIGMA).repeat(clean.shape[1], 1, 1, 1)

    terms = []
    for scale in range(scales):
        similarity, structure = _ssim(clean, adversarial, data_range=1.0, win=window, size_average=False)
        if scale == 0:
            finest = similarity.mean(dim=1)
        if scale == scales - 1:
            terms.append(similarity)
            break
        terms.append(structure)
        padding = [side % 2 for side in clean.shape[-2:]]
        clean = functional.avg_pool2d(clean, kernel_size=2, padding=padding)
        adversarial = functional.avg_pool2d(adversarial, kernel_size=2, padding=padding)

    # the slope of x^w at 0 is infinite, but the gradient of relu there is 0, so the result is 0 and not NaN
    clamped = torch.relu(torch.stack(terms))  # scales×N×3
    return finest, (clamped ** weights.view(-1, 1, 1)).prod(dim=0).mean(dim=1)


def check_pair(clean: Tensor, adversarial: Tensor) -> None:
    if clean.ndim != 4 or clean.shape != adversarial.shape:
        raise BenchError(
            f"similarity compares two N×3×H×W batches of one shape, not {tuple(clean.shape)} "
            f"and {tuple(adversarial.shape)}"
        )
    if min(clean.shape[-2:]) < WINDOW:
        raise BenchError(
            f"SSIM needs images of at least {WINDOW}×{WINDOW} pixels, not {clean.shape[-2]}×{clean.shape[-1]}: "
            "use larger images"
        )
