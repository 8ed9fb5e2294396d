"""Other forms of input that a model may expect."""

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
        "the model appears to expect 0 to 255: multiply by 255 in embed, as victims.fastreid.FastReidModel does",
    ),
    "from -1 to 1": (
        "value range",
        lambda images: 2.0 * images - 1.0,
        "the model appears to expect -1 to 1: use preprocess with mean and std of 0.5",
    ),
    UNDONE: (
        "normalisation",
        _undone,
        "the images appear to be normalised twice: remove one of the two, here or in the model",
    ),
    "normalised by ImageNet's mean and std": (
        "normalisation",
        _normalised,
        "the model appears to expect normalised images: use preprocess in embed",
    ),
    SWAPPED: (
        "colour order",
        lambda images: images.flip(1),
        "if it was trained on BGR, as read by OpenCV, pass images.flip(1); on data with other colours than its "
        "training data this can be due to chance",
    ),
}
"""Form of input → (name of its check, transformation of images in [0, 1], advice)."""
