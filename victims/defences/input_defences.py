"""Input transformations as defences: the undefended model behind a `purify`. The model is not retrained.

JPEG as in Guo et al. (ICLR 2018, arXiv 1711.00117), bit depth and smoothing as in Xu et al. (NDSS
2018, arXiv 1704.01155), random resizing and padding as in Xie et al. (ICLR 2018, arXiv 1711.01991).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import Defence, State, Victim, WrappedVictim, to_float, to_uint8
from reid_attack_bench.errors import BenchError
from reid_attack_bench.validation import check_settings

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
class RandomResizePad(Defence):
    """Shrink each batch by a random factor and paste it at a random place on grey; the gradient is random.

    Attributes:
        smallest: smallest factor for both sides, 0.1 to 1.
    """

    version: ClassVar[int] = 1
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
        height, width = images.shape[-2:]
        factor, down, right = torch.rand(3).tolist()  # the global generator, seeded by the step
        factor = self.smallest + (1 - self.smallest) * factor
        size = max(1, round(factor * height)), max(1, round(factor * width))
        small = functional.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
        top, left = int(down * (height - size[0] + 1)), int(right * (width - size[1] + 1))
        padding = (left, width - size[1] - left, top, height - size[0] - top)
        return functional.pad(small, padding, value=0.5)
