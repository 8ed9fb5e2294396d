"""Other forms of input that a model may have been meant to get."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reid_attack_bench.contracts import IMAGENET_MEAN, IMAGENET_STD, preprocess

UNDONE = "with ImageNet's mean and std undone"

SWAPPED = "as BGR"


def _normalised(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    return preprocess(images, (height, width))


def _undone(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(value).view(1, 3, 1, 1).to(images) for value in (IMAGENET_MEAN, IMAGENET_STD))
    return images * std + mean


INPUTS: dict[str, tuple[str, Callable[[Tensor], Tensor], str]] = {
    "from 0 to 255": (
        "value range",
        lambda images: 255.0 * images,
        "the model expects 0 to 255, it seems: multiply by 255 in embed, as victims.fastreid.FastReidModel does",
    ),
    "from -1 to 1": (
        "value range",
        lambda images: 2.0 * images - 1.0,
        "the model expects -1 to 1, it seems: use preprocess with mean and std of 0.5",
    ),
    UNDONE: (
        "normalisation",
        _undone,
        "the images are normalised twice, it seems: leave out one of the two, here or in the model",
    ),
    "normalised by ImageNet's mean and std": (
        "normalisation",
        _normalised,
        "the model expects normalised images, it seems: use preprocess in embed",
    ),
    SWAPPED: (
        "colour order",
        lambda images: images.flip(1),
        "was it trained on BGR, as OpenCV reads? Then give it images.flip(1); on data with other colours than its own "
        "it can be an accident",
    ),
}
"""What else a model may have been meant to get: which check it belongs to, how to make it, what to do."""
