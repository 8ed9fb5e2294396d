"""A toy that counts what is asked of it, and one that does not fit into memory."""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import torch

from reid_attack_bench.contracts import Attack, Victim

PASSED: Counter = Counter()
"""(victim's seed, with gradients or not) → images that passed forward."""
CRAFTED: list = []
"""(attack, source's name, images) of each call of craft."""
LIMIT: list = []
"""Images that fit into memory, where there is a limit."""


class Counting(Victim):
    input_size = (64, 32)
    distance = "cosine"

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.seed, self.name = seed, f"v{seed}"
        self.layer = torch.nn.Linear(3 * 8 * 4, 16)

    def embed(self, images):
        if LIMIT and len(images) > LIMIT[0]:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        PASSED[self.seed, images.requires_grad] += len(images)
        pooled = torch.nn.functional.avg_pool2d(images, 8).flatten(1)
        return (pooled.unsqueeze(1) * self.layer.weight).sum(dim=2)  # a product of matrices rounds by the batch

    def logits(self, images):
        return self.embed(images)


@dataclass(frozen=True)
class CountingPGD(Attack):
    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    steps: int = 3

    def craft(self, source, batch, threat, generator):
        CRAFTED.append((self.steps, source.name, len(batch.images)))
        current = batch.images + threat.radius * (torch.rand(batch.images.shape, generator=generator) * 2 - 1)
        for _ in range(self.steps):
            current = current.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(source.embed(current).square().sum(), current)
            current = threat.project(current + threat.radius * gradient.sign(), batch.images)
        return current.detach()
