"""Three-scale discriminator and PatchGAN of Deep Mis-Ranking (Wang et al., CVPR 2020, arXiv 2004.04199).

The layers follow the released code: at the default widths the numbers of parameters are the same, 1,966,915 for the
generator, 3 × 2,768,641 for the discriminator and 4,528,898 for the mask head. Images need sides of at least 16 pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..common.generator import Normalisation, SameConv, normaliser, same_padding

Discrimination = Literal["multi-stage", "patchgan"]


class SubDiscriminator(nn.Module):
    """Five 4×4 convolutions that score overlapping 70×70 patches of a 6-channel pair of images.

    Args:
        width: channels after the first convolution.
        normalisation: "batch" or "instance".
        spectral: whether all convolutions but the last are spectrally normalised; the first then has no bias.
    """

    def __init__(self, width: int, normalisation: Normalisation, spectral: bool = True) -> None:
        super().__init__()
        bias = normalisation == "instance"
        first = SameConv(6, width, 2, spectral, bias=bias or not spectral)
        layers: list[nn.Module] = [nn.Sequential(first, nn.LeakyReLU(0.2, inplace=True))]
        for inputs, outputs, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
            layers.append(
                nn.Sequential(
                    SameConv(inputs * width, outputs * width, stride, spectral, bias=bias),
                    normaliser(normalisation, outputs * width),
                    nn.LeakyReLU(0.2, inplace=True),
                )
            )
        layers.append(SameConv(8 * width, 1, 1, spectral=False, bias=True))
        self.layers = nn.ModuleList(layers)

    def forward(self, pair: Tensor) -> list[Tensor]:
        """N×6×H×W → the five layers' maps at 1/2, 1/4, 1/8, 1/8 and (scores, one channel) 1/8."""
        maps: list[Tensor] = []
        for layer in self.layers:
            pair = layer(pair)
            maps.append(pair)
        return maps


class Discriminator(nn.Module):
    """Scores pairs (clean, other) at full, half and quarter scale.

    Args:
        width: channels after each first convolution (64 in the paper).
        normalisation: "batch" or "instance".
        zero_padding: whether the image pyramid is padded with zeros, as released, instead of its border.
    """

    def __init__(self, width: int = 64, normalisation: Normalisation = "batch", *, zero_padding: bool = False) -> None:
        super().__init__()
        self.padding = "constant" if zero_padding else "replicate"
        self.scales = nn.ModuleList(SubDiscriminator(width, normalisation) for _ in range(3))

    def forward(self, clean: Tensor, other: Tensor) -> list[list[Tensor]]:
        """Two N×3×H×W in [0, 1] → for full, half and quarter scale the maps of `SubDiscriminator`."""
        pair = 2.0 * torch.cat((clean, other), dim=1) - 1.0
        outputs: list[list[Tensor]] = []
        for index, scale in enumerate(self.scales):
            if index:
                padded = functional.pad(pair, same_padding(pair, 3, 2), mode=self.padding)
                pair = functional.avg_pool2d(padded, 3, 2)
            outputs.append(scale(pair))
        return outputs


class PatchGAN(nn.Module):
    """Scores pairs (clean, other) at full scale only (Isola et al., CVPR 2017, arXiv 1611.07004).

    70×70 patches without spectral normalisation, as in the paper's comparison: 2,768,705 weights at width 64. "Same"
    padding, so that images of 16 pixels are accepted.
    """

    def __init__(self, width: int = 64, normalisation: Normalisation = "batch") -> None:
        super().__init__()
        self.patches = SubDiscriminator(width, normalisation, spectral=False)

    def forward(self, clean: Tensor, other: Tensor) -> list[list[Tensor]]:
        """Two N×3×H×W in [0, 1] → the maps of `SubDiscriminator`, in a list of one."""
        return [self.patches(2.0 * torch.cat((clean, other), dim=1) - 1.0)]


def score_maps(outputs: list[list[Tensor]]) -> list[Tensor]:
    """The raw scores (no sigmoid) per scale, N×1×h×w: 32×16, 16×8 and 8×4 for 256×128 images (PatchGAN: 32×16)."""
    return [maps[-1] for maps in outputs]
