"""Defences that pretend, as a user would write them, and toys to defend."""

from dataclasses import dataclass

import torch

from reid_attack_bench.contracts import Defence, Victim


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


class Paranoid(Wrapped):
    """Refuses every query that does not consist of few colours: all of them."""

    def embed(self, images):
        return self.victim.embed(images)

    def rejects(self, images):
        return torch.ones(len(images), dtype=torch.bool)


class Wary(Paranoid):
    """Refuses what has values that 8-bit images of the clean set never have together: noise near the ends."""

    def rejects(self, images):
        steps = (images[..., 1:] - images[..., :-1]).abs().flatten(1).mean(dim=1)
        return steps > 0.055


@dataclass(frozen=True)
class Pretend(Defence):
    kind: str = "rounded"

    def defend(self, victim, state=None):
        return {
            "rounded": Rounded, "detached": Detached, "jittered": Jittered,
            "paranoid": Paranoid, "wary": Wary,
        }[self.kind](victim)  # fmt: skip


class Headless(Victim):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Conv2d(3, 4, 8, 8)

    def embed(self, images):
        return self.body(images).flatten(1)
