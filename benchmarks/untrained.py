"""A victim with random weights; the cost of a pass does not depend on training."""

from __future__ import annotations

import torch

from reid_attack_bench.victims.torchreid_zoo import TorchreidModel, untrained_model


class Untrained(TorchreidModel):
    """An architecture of torchreid with random weights from `seed`."""

    def __init__(self, arch: str = "osnet_x0_25", input_size: tuple[int, int] = (128, 64), seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = untrained_model(arch, 32)
        super().__init__(model, arch, tuple(input_size), "cosine")
