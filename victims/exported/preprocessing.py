"""The input of a network as its own program prepares it: resize, padding, order of the channels, normalisation."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from reid_attack_bench.contracts import Interpolation, preprocess

from .conventions import Triple

Channels = Literal["rgb", "bgr"]

_UNCHANGED = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # mean and standard deviation


class Preprocessing(nn.Module):
    """RGB N×3×H×W in [0, 1] → the input of a network, N×3×height×width, differentiable.

    Args:
        size: (height, width) in pixels.
        mean, std: normalisation of images in [0, 1], per channel, in the order of `channels`.
        channels: their order in the input, "rgb" or "bgr".
        resize: "bilinear" or "bicubic".
        antialias: True for Pillow's resize, False for OpenCV's.
        pad: colour (red, green, blue) from 0 to 255, with which an image that keeps its aspect ratio is padded on both
            sides; None to stretch it.
    """

    def __init__(
        self,
        size: tuple[int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        channels: Channels = "rgb",
        resize: Interpolation = "bilinear",
        antialias: bool = True,
        pad: Triple | None = None,
    ) -> None:
        super().__init__()
        self.size, self.mean, self.std = size, mean, std
        self.channels, self.resize, self.antialias, self.pad = channels, resize, antialias, pad

    def forward(self, images: Tensor) -> Tensor:
        if self.pad is not None:
            images = self._padded(images, self.pad)
        if self.channels == "bgr":
            images = images.flip(1)
        return preprocess(images, self.size, self.mean, self.std, interpolation=self.resize, antialias=self.antialias)

    def _padded(self, images: Tensor, colour: Triple) -> Tensor:
        (height, width), (whole_height, whole_width) = images.shape[-2:], self.size
        factor = min(whole_width / width, whole_height / height)
        inner_height, inner_width = max(1, int(height * factor)), max(1, int(width * factor))
        resized = preprocess(
            images, (inner_height, inner_width), *_UNCHANGED, interpolation=self.resize, antialias=self.antialias
        )
        frame = torch.tensor(colour, dtype=resized.dtype).to(resized.device, non_blocking=True).div(255)
        padded = frame.view(1, 3, 1, 1).repeat(len(resized), 1, whole_height, whole_width)
        top, left = (whole_height - inner_height) // 2, (whole_width - inner_width) // 2
        padded[..., top : top + inner_height, left : left + inner_width] = resized
        return padded
