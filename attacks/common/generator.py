"""The generator of Mis-Ranking and GAP, its layers and its initialisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from reid_attack_bench.errors import BenchError

Module = TypeVar("Module", bound=nn.Module)

Normalisation = Literal["batch", "instance"]

Upsampling = Literal["transposed", "resize"]

SMALLEST_SIDE = 16  # pixels; the least for reflection padding after two convolutions of stride 2


def check_image_size(attack: str, size: Sequence[int]) -> None:
    """Raise BenchError in the name of `attack` unless both sides of (height, width) have `SMALLEST_SIDE` pixels."""
    height, width = size
    if min(height, width) < SMALLEST_SIDE:
        raise BenchError(
            f"{attack} needs images of at least {SMALLEST_SIDE}×{SMALLEST_SIDE} pixels, not {height}×{width}"
        )


def initialised(build: Callable[[], Module], generator: torch.Generator) -> Module:
    """Build a module whose initial weights depend on `generator` alone; the global random state stays as it is."""
    seed = int(torch.randint(2**62, (1,), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return build()


def normaliser(kind: Normalisation, channels: int) -> nn.Module:
    """Batch normalisation (affine) or instance normalisation (not affine)."""
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.InstanceNorm2d(channels)


def count_parameters(*modules: nn.Module) -> int:
    """Number of trainable parameters; the u and v vectors of spectral normalisation are buffers and do not count."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


class SameConv(nn.Module):
    """4×4 convolution with TensorFlow's "same" padding: n → ceil(n / stride) for every n."""

    def __init__(self, inputs: int, outputs: int, stride: int, spectral: bool, bias: bool) -> None:
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, 4, stride, bias=bias)
        self.conv = spectral_norm(conv) if spectral else conv
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.pad(x, same_padding(x, 4, self.stride)))


def same_padding(x: Tensor, kernel: int, stride: int) -> list[int]:
    """Padding (left, right, top, bottom) that makes the output ceil(side / stride)."""
    padding: list[int] = []
    for side in (x.shape[-1], x.shape[-2]):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        padding += [total // 2, total - total // 2]
    return padding


class ResidualBlock(nn.Module):
    """Two reflection-padded 3×3 convolutions around an identity; no activation after the sum."""

    def __init__(self, channels: int, normalisation: Normalisation) -> None:
        super().__init__()
        bias = normalisation == "instance"

        def conv() -> list[nn.Module]:
            return [
                nn.ReflectionPad2d(1),
                spectral_norm(nn.Conv2d(channels, channels, 3, bias=bias)),
                normaliser(normalisation, channels),
            ]

        self.body = nn.Sequential(*conv(), nn.ReLU(inplace=True), *conv())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Generator(nn.Module):
    """Image → noise in [−1, 1], in units of epsilon.

    7×7 convolution, two of stride 2, residual blocks, two up-sampling steps, 7×7 convolution, tanh;
    spectral normalisation on all but the last, which keeps PyTorch's default initialisation: the input of
    tanh starts within about ±0.4, far from saturation, so every pixel has a gradient.

    Args:
        width: channels after the first convolution (32 in the paper).
        blocks: residual blocks, at 4 · width channels.
        normalisation: "batch" (convolutions without bias) or "instance" (with bias).
        upsampling: "transposed" convolutions, as released, or "resize": nearest-neighbour ×2 and a 3×3
            convolution, with the same number of weights, which leaves no checkerboard artefacts in the noise.
    """

    def __init__(
        self,
        width: int = 32,
        blocks: int = 6,
        normalisation: Normalisation = "batch",
        upsampling: Upsampling = "transposed",
    ) -> None:
        super().__init__()
        bias = normalisation == "instance"

        def stage(conv: nn.Module, channels: int) -> list[nn.Module]:
            return [spectral_norm(conv), normaliser(normalisation, channels), nn.ReLU(inplace=True)]

        def up(inputs: int, outputs: int) -> list[nn.Module]:
            if upsampling == "resize":
                conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
                return [nn.Upsample(scale_factor=2, mode="nearest"), *stage(conv, outputs)]
            return stage(nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, output_padding=1, bias=bias), outputs)

        self.body = nn.Sequential(
            nn.ReflectionPad2d(3),
            *stage(nn.Conv2d(3, width, 7, bias=bias), width),
            *stage(nn.Conv2d(width, 2 * width, 3, 2, 1, bias=bias), 2 * width),
            *stage(nn.Conv2d(2 * width, 4 * width, 3, 2, 1, bias=bias), 4 * width),
            *(ResidualBlock(4 * width, normalisation) for _ in range(blocks)),
            *up(4 * width, 2 * width),
            *up(2 * width, width),
            nn.ReflectionPad2d(3),
            nn.Conv2d(width, 3, 7),
            nn.Tanh(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """N×3×H×W in [0, 1] → N×3×H×W in [−1, 1].

        The input becomes 2x − 1, the range of the output. It is never ImageNet-normalised: victims normalise their own
        input, and the noise must not depend on it.
        """
        height, width = images.shape[-2:]
        # two strides of 2 round up: sides not divisible by 4 come back larger
        return self.body(2.0 * images - 1.0)[..., :height, :width]

    def before_tanh(self, images: Tensor) -> Tensor:
        """Like `forward`, but without tanh: unbounded."""
        height, width = images.shape[-2:]
        return self.body[:-1](2.0 * images - 1.0)[..., :height, :width]
