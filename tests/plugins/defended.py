"""Defences that pretend, as a user would write them, and toys to defend."""

from dataclasses import dataclass

import torch

from reid_attack_bench.contracts import Victim


class Wrapped(Victim):
    def __init__(self, victim: Victim) -> None:
        super().__init__()
        self.victim = victim
        self.name, self.distance, self.input_size = victim.name, victim.distance, victim.input_size


class Rounded(Wrapped):
    """Hides its gradient in a rounding that changes next to nothing."""

    def embed(self, images):
        return self.victim.embed((images * 127).round() / 127)

    def logits(self, images):
        return self.victim.logits((images * 127).round() / 127)


class Detached(Wrapped):
    """Hides its gradient behind a detach, with a useless one beside it."""

    def embed(self, images):
        return self.victim.embed(images.detach()) + 0.0 * images.mean()


class Jittered(Wrapped):
    """Embeddings hardly differ from call to call, gradients are almost all noise. It does not say so."""

    def embed(self, images):
        clean = self.victim.embed(images)
        waves = torch.randn(*images.shape[1:], clean.shape[1]) * 40.0
        phase = torch.einsum("nchw,chwd->nd", images, waves)
        return clean + 0.004 * clean.detach().abs().mean() * phase.sin()


@dataclass(frozen=True)
class Pretend:
    kind: str = "rounded"

    def defend(self, victim, state=None):
        return {"rounded": Rounded, "detached": Detached, "jittered": Jittered}[self.kind](victim)
