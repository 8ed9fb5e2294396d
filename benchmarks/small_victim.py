"""A victim with almost no cost, so that the time of a large matrix is that of the bench."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_attack_bench.contracts import Victim


class Small(Victim):
    """A linear map of the image at one eighth of its size.

    Args:
        seed: seed of the weights.
    """

    input_size = (64, 32)

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.features, self.classes = nn.Linear(96, 32), nn.Linear(32, 16)

    def embed(self, images: Tensor) -> Tensor:
        features: Tensor = self.features(functional.adaptive_avg_pool2d(images, (8, 4)).flatten(1))
        return features

    def logits(self, images: Tensor) -> Tensor:
        classes: Tensor = self.classes(self.embed(images))
        return classes
