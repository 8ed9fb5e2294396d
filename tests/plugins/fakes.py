"""Victims that look robust and are not, for the audit: each hides the weakness of the network within in one way.

`trained` trains that network in seconds; attacks by its gradients break it. `FAKES` is every fake by name.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_attack_bench.contracts import TrainingData, Victim, WrappedVictim, preprocess, to_float
from tests.plugins.redirected import redirected


class WinnersTakeAll(nn.Module):
    """Keeps the largest values of all of a layer and sets the others to 0 (k-WTA, Xiao et al., arXiv 1905.10510)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, features: Tensor) -> Tensor:
        values = features.flatten(1)
        least = values.topk(max(1, round(self.share * values.shape[1])), dim=1).values[:, -1]
        return features * (features >= least.view(-1, 1, 1, 1))


class Network(Victim):
    """Three convolutions over four stripes; the classifier is for its training.

    Args:
        classes: number of identities.
        winners: share of values that each layer keeps, see WinnersTakeAll; 0 for ReLU.
    """

    input_size = (64, 32)
    distance = "cosine"

    def __init__(self, classes: int, winners: float = 0.0) -> None:
        super().__init__()
        act = WinnersTakeAll(winners) if winners else nn.ReLU()
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 24, 5, 2, 2), nn.BatchNorm2d(24), act),
            *(nn.Conv2d(24, 48, 3, 2, 1), nn.BatchNorm2d(48), act),
            *(nn.Conv2d(48, 64, 3, 2, 1), nn.BatchNorm2d(64), act),
        )
        self.neck = nn.BatchNorm1d(256)
        self.classifier = nn.Linear(256, classes)

    def embed(self, images: Tensor) -> Tensor:
        features = self.body(preprocess(images, self.input_size))
        return self.neck(functional.adaptive_avg_pool2d(features, (4, 1)).flatten(1))

    def logits(self, images: Tensor) -> Tensor:
        return self.classifier(self.embed(images))


def trained(data: TrainingData, steps: int = 150, seed: int = 0, winners: float = 0.0) -> Network:
    """A network trained to classify the identities of `data`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(data.identity_count, winners)
    optimiser = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    images, identities = to_float(data.images), torch.from_numpy(data.identities)
    for step in range(steps):
        rows = torch.randint(len(images), (32,), generator=generator)
        seen = images[rows] if step % 2 else images[rows].flip(-1)
        loss = functional.cross_entropy(network.logits(seen), identities[rows], label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def signs_changed(gradient: Tensor) -> Tensor:
    """The sign of half of the values is wrong, always that of the same."""
    drawn = torch.rand(gradient.shape[1:], generator=torch.Generator().manual_seed(1))
    return gradient * torch.where(drawn < 0.5, -1.0, 1.0)


class Fake(WrappedVictim):
    """A network around which a subclass overrides `seen`, the images as the network gets them."""

    def seen(self, images: Tensor) -> Tensor:
        return images

    def embed(self, images: Tensor) -> Tensor:
        return self.victim.embed(self.seen(images))

    def logits(self, images: Tensor) -> Tensor | None:
        return self.victim.logits(self.seen(images))


class HonestInSmallBatches(Fake):
    """The gradient is right for at most 8 images at a time."""

    def seen(self, images: Tensor) -> Tensor:
        return images if len(images) <= 8 else redirected(images, signs_changed)


class HonestForTheFirst(Fake):
    """The gradient is right for the first 4 images of a batch alone."""

    def seen(self, images: Tensor) -> Tensor:
        return redirected(images, lambda gradient: torch.cat((gradient[:4], signs_changed(gradient[4:]))))


class Remembers(Fake):
    """An image within 16/255 of one that it has seen is answered as that one."""

    def __init__(self, victim: Victim, defence: str = "") -> None:
        super().__init__(victim, defence)
        self._known: list[Tensor] = []
        self._means = torch.empty(0, 96)  # of blocks; images that are near have near means

    def seen(self, images: Tensor) -> Tensor:
        means = functional.adaptive_avg_pool2d(images.detach(), (8, 4)).flatten(1)
        return images + (torch.stack(list(map(self._nearest, images.detach(), means))) - images).detach()

    def _nearest(self, image: Tensor, means: Tensor) -> Tensor:
        limit = 16.5 / 255
        for place in ((self._means - means).abs().amax(dim=1) <= limit).nonzero().flatten().tolist():
            if (self._known[place] - image).abs().max() <= limit:
                return self._known[place]
        self._known.append(image.clone())
        self._means = torch.cat((self._means, means[None]))
        return image


class RemembersWithoutGradients(Remembers):
    """The same, and attacks see nothing of it: with gradients it is the network."""

    def seen(self, images: Tensor) -> Tensor:
        return images if torch.is_grad_enabled() else super().seen(images)


class WrongStraightThrough(Fake):
    """A quantiser whose straight-through gradient has a wrong direction."""

    def seen(self, images: Tensor) -> Tensor:
        rounded = (images * 15).round() / 15
        return redirected(images, signs_changed) + (rounded - images).detach()


class Reversed(Fake):
    """Every gradient leads downhill."""

    def seen(self, images: Tensor) -> Tensor:
        return redirected(images, torch.neg)


class Jitters(Fake):
    """Random, and it does not say so: answers hardly differ, gradients are almost all noise."""

    def embed(self, images: Tensor) -> Tensor:
        clean = self.victim.embed(images)
        phase = (images.flatten(1) @ torch.randn(images[0].numel(), 8)) * 400.0
        waves = phase.sin() @ torch.randn(8, clean.shape[1])
        return clean + 0.002 * clean.detach().abs().mean() * waves


class JittersInLargeBatches(Jitters):
    """The same for more than 8 images at a time."""

    def embed(self, images: Tensor) -> Tensor:
        return super().embed(images) if len(images) > 8 else self.victim.embed(images)


class Counts(Fake):
    """Which pixels it moves depends on how often it was called."""

    def __init__(self, victim: Victim, defence: str = "") -> None:
        super().__init__(victim, defence)
        self._calls = 0

    def seen(self, images: Tensor) -> Tensor:
        self._calls += 1
        generator = torch.Generator().manual_seed(self._calls)
        pattern = torch.where(torch.rand(images.shape[1:], generator=generator) < 0.5, -1.0, 1.0)
        return redirected(images, lambda gradient: gradient * pattern) + pattern / 255


class RefusesEverything(Fake):
    """A detector that accepts no image."""

    def rejects(self, images: Tensor) -> Tensor:
        return torch.ones(len(images), dtype=torch.bool)


def roughness(images: Tensor) -> Tensor:
    """Median difference between diagonals of neighbours, N values: low on clean images, smooth in most places.

    Above `ROUGH` it is on 1 clean image in 100, and on every image with changes of 8/255 from pixel to pixel.
    """
    mixed = images[..., 1:, 1:] - images[..., :-1, 1:] - images[..., 1:, :-1] + images[..., :-1, :-1]
    return mixed.abs().flatten(1).median(dim=1).values


ROUGH = 0.02


class RefusesRoughImages(Fake):
    """A detector without a score."""

    def rejects(self, images: Tensor) -> Tensor:
        return roughness(images) > ROUGH


class WrongSuspicion(RefusesRoughImages):
    """A detector whose score leads attacks to images that are more suspicious."""

    def suspicion(self, images: Tensor) -> Tensor:
        return roughness(redirected(images, torch.neg)) - ROUGH


class Saturates(Fake):
    """The ends of a sigmoid: next to no gradient comes back."""

    def embed(self, images: Tensor) -> Tensor:
        return torch.sigmoid(60.0 * self.victim.embed(images)) - 0.5


class Steps(Fake):
    """A quantised embedding, with a gradient of almost zero beside it."""

    def embed(self, images: Tensor) -> Tensor:
        clean = self.victim.embed(images)
        return (4 * clean).round() / 4 + 1e-12 * images.mean()


class Underflows(Fake):
    """The gradient is too small for its type, and what is left has a random sign."""

    def seen(self, images: Tensor) -> Tensor:
        def small(gradient: Tensor) -> Tensor:
            drawn = torch.rand(gradient.shape, generator=torch.Generator().manual_seed(2))
            return gradient * 1e-44 * torch.where(drawn < 0.5, -1.0, 1.0)

        return redirected(images, small)


class WrongAwayFromCleanImages(Fake):
    """The gradient is right on smooth images, as clean ones are, and wrong on rough ones, as adversarial images are."""

    def seen(self, images: Tensor) -> Tensor:
        smooth = (roughness(images.detach()) <= ROUGH).view(-1, 1, 1, 1)
        return redirected(images, lambda gradient: torch.where(smooth, gradient, signs_changed(gradient)))


class OtherWithGradients(Fake):
    """With gradients it is another network."""

    def __init__(self, victim: Victim, defence: str = "") -> None:
        super().__init__(victim, defence)
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.twin = Network(8).eval()

    def embed(self, images: Tensor) -> Tensor:
        return (self.twin if torch.is_grad_enabled() else self.victim).embed(images)


class OtherGradient(OtherWithGradients):
    """The answer is that of the network, and its gradient that of another."""

    def embed(self, images: Tensor) -> Tensor:
        other = self.twin.embed(images)
        return self.victim.embed(images).detach() + other - other.detach()


class Corner(Fake):
    """Only a corner of the image has a gradient."""

    def seen(self, images: Tensor) -> Tensor:
        inside = torch.zeros_like(images[:1])
        inside[..., :8, :8] = 1
        return redirected(images, lambda gradient: gradient * inside)


FAKES: dict[str, type[Fake]] = {
    each.__name__: each
    for each in (
        HonestInSmallBatches, HonestForTheFirst, Remembers, RemembersWithoutGradients, WrongStraightThrough, Reversed,
        Jitters, JittersInLargeBatches, Counts, RefusesEverything, RefusesRoughImages, WrongSuspicion, Saturates, Steps,
        Underflows, WrongAwayFromCleanImages, OtherWithGradients, OtherGradient, Corner,
    )
}  # fmt: skip
