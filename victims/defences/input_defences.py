"""Input transformations as defences: the undefended model behind a `purify`. The model is not retrained.

JPEG as in Guo et al. (ICLR 2018, arXiv 1711.00117), bit depth and smoothing as in Xu et al. (NDSS
2018, arXiv 1704.01155), random resizing and padding as in Xie et al. (ICLR 2018, arXiv 1711.01991), the chain of
resizings as in Gong et al. (CVPR 2022).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import Defence, State, Victim, WrappedVictim, to_float, to_uint8
from reid_attack_bench.errors import BenchError
from reid_attack_bench.validation import Count, check_settings

Transformation = Callable[[Tensor], Tensor]
"""Images N×3×H×W in [0, 1] → images of the same shape and range."""


class Purified(WrappedVictim):
    """`victim` behind an input transformation."""

    def __init__(self, victim: Victim, transformation: Transformation, defence: str, citation: str) -> None:
        super().__init__(victim, defence)
        self.transformation, self.citation = transformation, citation

    def purify(self, images: Tensor) -> Tensor:
        return self.transformation(images)

    def embed(self, images: Tensor) -> Tensor:
        return self.victim.embed(self.purify(images))

    def logits(self, images: Tensor) -> Tensor | None:
        return self.victim.logits(self.purify(images))

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.victim.outputs(self.purify(images))

    def suspicion(self, images: Tensor) -> Tensor | None:
        return self.victim.suspicion(self.purify(images))

    def rejects(self, images: Tensor) -> Tensor | None:
        return self.victim.rejects(self.purify(images))


@dataclass(frozen=True)
class Jpeg(Defence):
    """JPEG compression; not differentiable.

    Attributes:
        quality: JPEG quality, 1 to 95.
    """

    version: ClassVar[int] = 1
    differentiable: ClassVar[bool] = False
    purifies: ClassVar[bool] = True
    quality: Annotated[int, Field(ge=1, le=95)] = 50

    def __post_init__(self) -> None:
        check_settings(self, "jpeg")

    def defend(self, victim: Victim, state: State | None = None) -> Victim:
        defended = Purified(victim, self._through, f"JPEG, quality {self.quality}", "arXiv 1711.00117")
        defended.differentiable = False
        return defended

    def _through(self, images: Tensor) -> Tensor:
        decoded = []
        for image in to_uint8(images):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG", quality=self.quality)
            decoded.append(np.asarray(Image.open(file)))
        return to_float(np.stack(decoded), images.device)


@dataclass(frozen=True)
class BitDepth(Defence):
    """Round colour values to fewer bits; the gradient is zero almost everywhere.

    Attributes:
        bits: bits per colour value, 1 to 7.
    """

    version: ClassVar[int] = 1
    purifies: ClassVar[bool] = True
    bits: Annotated[int, Field(ge=1, le=7)] = 4

    def __post_init__(self) -> None:
        check_settings(self, "bit-depth")

    def defend(self, victim: Victim, state: State | None = None) -> Victim:
        levels = 2**self.bits - 1
        return Purified(
            victim, lambda images: (images * levels).round() / levels, f"{self.bits} bits a colour", "arXiv 1704.01155"
        )


@dataclass(frozen=True)
class MedianSmoothing(Defence):
    """Median filter.

    Attributes:
        size: side of the square window in pixels; odd, at least 3.
    """

    version: ClassVar[int] = 1
    purifies: ClassVar[bool] = True
    size: Annotated[int, Field(ge=3)] = 3

    def __post_init__(self) -> None:
        check_settings(self, "median")
        if self.size % 2 == 0:
            raise BenchError(f"median: size must be odd, not {self.size}")

    def defend(self, victim: Victim, state: State | None = None) -> Victim:
        return Purified(victim, self._smooth, f"median of {self.size}×{self.size}", "arXiv 1704.01155")

    def _smooth(self, images: Tensor) -> Tensor:
        half = self.size // 2
        padded = functional.pad(images, (half, half, half, half), mode="reflect")
        windows = padded.unfold(2, self.size, 1).unfold(3, self.size, 1)
        return windows.flatten(-2).median(dim=-1).values


@dataclass(frozen=True)
class GaussianSmoothing(Defence):
    """Gaussian blur; differentiable.

    Attributes:
        sigma: standard deviation in pixels, 0.1 to 10.
    """

    version: ClassVar[int] = 1
    sigma: Annotated[float, Field(ge=0.1, le=10)] = 1.0

    def __post_init__(self) -> None:
        check_settings(self, "gaussian")

    def defend(self, victim: Victim, state: State | None = None) -> Victim:
        from torchvision.transforms.v2.functional import gaussian_blur  # slow to import, and not needed for planning

        size = 2 * max(1, round(3 * self.sigma)) + 1
        return Purified(
            victim,
            lambda images: gaussian_blur(images, [size, size], [self.sigma, self.sigma]),
            f"Gaussian blur, sigma {self.sigma:g}",
            "arXiv 1704.01155",
        )


@dataclass(frozen=True)
class ResizeChain(Defence):
    """Resize each image to several sizes one after another, and back to its own; differentiable.

    "Circuitous scaling", the test-time part of the joint defence (Gong et al., CVPR 2022; released code: test.py of
    github.com/finger-monkey/LTA_and_joint-defence). The code resizes 8-bit images with PIL; here values are not rounded
    in between, so that attacks need no adaptation. The other part, training on grayscale and sketched images, is left
    out.

    Attributes:
        sizes: (height, width) of each resizing, in pixels, in their order.
        interpolation: "bicubic" or "bilinear", with antialias.
    """

    version: ClassVar[int] = 1
    sizes: Annotated[tuple[tuple[Count, Count], ...], Field(min_length=1)] = ((110, 50), (220, 100), (110, 50))
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def __post_init__(self) -> None:
        check_settings(self, "resize-chain")

    def defend(self, victim: Victim, state: State | None = None) -> Victim:
        chain = " → ".join(f"{height}×{width}" for height, width in self.sizes)
        return Purified(victim, self._through, f"resized to {chain}", "Gong et al., CVPR 2022")

    def _through(self, images: Tensor) -> Tensor:
        own = (images.shape[-2], images.shape[-1])
        for size in (*self.sizes, own):
            images = functional.interpolate(images, size, mode=self.interpolation, antialias=True).clamp(0, 1)
        return images


@dataclass(frozen=True)
class RandomResizePad(Defence):
    """Shrink each image by a random factor and paste it at a random place on grey; the gradient is random.

    Attributes:
        smallest: smallest factor for both sides, 0.1 to 1.
    """

    version: ClassVar[int] = 2
    randomised: ClassVar[bool] = True
    smallest: Annotated[float, Field(ge=0.1, le=1)] = 0.8

    def __post_init__(self) -> None:
        check_settings(self, "random-resize-pad")

    def defend(self, victim: Victim, state: State | None = None) -> Victim:
        defended = Purified(
            victim, self._place, f"random resize to {self.smallest:g}–1 and padding", "arXiv 1711.01991"
        )
        defended.randomised = True
        return defended

    def _place(self, images: Tensor) -> Tensor:
        # the global generator, seeded by the step; image by image, so that it does not matter how they are batched
        factor, down, right = torch.rand(len(images), 3).unbind(1)
        factor = self.smallest + (1 - self.smallest) * factor
        rows, tall = _shrunk(images.shape[-2], factor, down)
        columns, wide = _shrunk(images.shape[-1], factor, right)
        with torch.autocast(images.device.type, enabled=False):  # a product of images is to keep their precision
            small = _both(images, rows.to(images), columns.to(images))
        inside = tall[:, None, :, None] & wide[:, None, None, :]
        return torch.where(inside.to(images.device), small, 0.5)


def _both(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """N×3×H×W images, multiplied by N×H×H on one side and by N×W×W on the other, each by its own."""
    count, channels, height, width = images.shape
    down = rows @ images.transpose(1, 2).reshape(count, height, channels * width)
    across = down.reshape(count, height * channels, width) @ columns.mT
    return across.view(count, height, channels, width).transpose(1, 2)


def _shrunk(side: int, factor: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices that shrink one side of each of N images and move it.

    The weights are those of functional.interpolate, bilinear with antialias.

    Args:
        side: length in pixels.
        factor: N, in (0, 1].
        place: N, in [0, 1): from the first to the last place that is possible.

    Returns:
        N×side×side, and bool N×side, which of the pixels are covered.
    """
    size = (factor * side).round().clamp(min=1)
    start = (place * (side - size + 1)).floor()
    scale = (side / size)[:, None, None]
    pixels = torch.arange(side)
    at = pixels - start[:, None]  # position in the shrunk image
    distance = (pixels + 0.5 - (at[:, :, None] + 0.5) * scale) / scale
    weights = (1 - distance.abs()).clamp(min=0)
    return weights / weights.sum(2, keepdim=True).clamp(min=1e-6), (at >= 0) & (at < size[:, None])
