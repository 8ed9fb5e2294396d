"""Selection of the pixels to change: mask head and top-k (Wang et al., CVPR 2020, arXiv 2004.04199)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from ..common.generator import Normalisation, normaliser


class _Merge(nn.Module):
    """Upsample the smaller map, add the projected larger one, convolve."""

    def __init__(self, small: int, big: int, outputs: int, normalisation: Normalisation) -> None:
        super().__init__()

        def block(inputs: int, channels: int, kernel: int) -> nn.Sequential:
            return nn.Sequential(
                spectral_norm(nn.Conv2d(inputs, channels, kernel, padding=kernel // 2)),
                normaliser(normalisation, channels),
                nn.LeakyReLU(0.2, inplace=True),
            )

        self.project = block(big, small, 1)
        self.mix = block(small, outputs, 3)

    def forward(self, small: Tensor, big: Tensor) -> Tensor:
        raised = functional.interpolate(small, size=big.shape[-2:], mode="bilinear", align_corners=False)
        return self.mix(raised + self.project(big))


class MaskHead(nn.Module):
    """Feature pyramid over the feature maps of the discriminator, with one logit per pixel.

    Args:
        width: the discriminator's width.
        normalisation: "batch" or "instance".
    """

    def __init__(self, width: int = 64, normalisation: Normalisation = "batch") -> None:
        super().__init__()
        self.to_sixteenth = _Merge(8 * width, 8 * width, 8 * width, normalisation)
        self.to_eighth = _Merge(8 * width, 8 * width, 4 * width, normalisation)
        self.to_quarter = _Merge(4 * width, 2 * width, 2 * width, normalisation)
        self.to_full = nn.Sequential(
            spectral_norm(nn.ConvTranspose2d(2 * width, 2 * width, 2, 2)),
            nn.LeakyReLU(0.2, inplace=True),
            spectral_norm(nn.ConvTranspose2d(2 * width, 2 * width, 2, 2)),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(2 * width, 1, 1),
        )
        # learned temperature of the softmax, initially 1; stored as a logarithm to keep it positive
        self.log_temperature = nn.Parameter(torch.zeros(()))

    def forward(self, outputs: list[list[Tensor]], size: tuple[int, int]) -> Tensor:
        """Feature maps of the discriminator and (height, width) of the images → logits N×H×W over the temperature."""
        full, half, quarter = outputs
        x = self.to_sixteenth(quarter[3], half[3])
        x = self.to_eighth(x, full[3])
        x = self.to_quarter(x, full[1])
        logits = self.to_full(x)[:, 0, : size[0], : size[1]]
        return logits / self.log_temperature.exp()


def top_k(scores: Tensor, k: int) -> Tensor:
    """N×H×W scores → N×1×H×W with exactly min(k, H·W) ones per image, at the largest scores; deterministic."""
    flat = scores.flatten(1)
    kept = flat.topk(min(k, flat.shape[1]), dim=1).indices
    return torch.zeros_like(flat).scatter_(1, kept, 1.0).view_as(scores).unsqueeze(1)


def gumbel(size: torch.Size, generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise on the CPU, drawn from `generator`."""
    exponential = torch.empty(size).exponential_(generator=generator)
    return -exponential.clamp_min(torch.finfo(exponential.dtype).tiny).log()


def straight_through_top_k(perturbed: Tensor, k: int) -> Tensor:
    """Hard top-k forward, softmax backward.

    Args:
        perturbed: N×H×W logits plus Gumbel noise, (log λ + N) / τ in the paper.
        k: pixels kept per image.

    Returns:
        N×1×H×W of exactly 0 or 1, with the gradient of the softmax over all H·W positions.
    """
    soft = perturbed.flatten(1).softmax(dim=1).view_as(perturbed).unsqueeze(1)
    # soft − soft is exactly 0, so the forward values stay exactly 0 and 1
    return top_k(perturbed.detach(), k) + (soft - soft.detach())
