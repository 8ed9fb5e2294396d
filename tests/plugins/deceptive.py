"""Victims that deceive in one way each, and honest ones that look odd; all around the same small network."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_attack_bench.contracts import preprocess
from tests.plugins.redirected import redirected
from tests.plugins.toy import ToyVictim


def mirrored(gradient: Tensor) -> Tensor:
    """Of the right size, in the wrong places."""
    return gradient.flip(-1).flip(-2).roll(1, dims=1)


class Deceptive(ToyVictim):
    """A subclass overrides `seen`, the images as the network gets them."""

    def seen(self, images: Tensor) -> Tensor:
        return images

    def embed(self, images: Tensor) -> Tensor:
        return super().embed(self.seen(images))


class WrongInLargeBatches(Deceptive):
    def seen(self, images):
        return redirected(images, mirrored) if len(images) > 8 else images


class WrongInSmallBatches(Deceptive):
    def seen(self, images):
        return redirected(images, mirrored) if len(images) < 8 else images


class WrongAfterAWhile(Deceptive):
    """Right at its first calls with gradients, counted where no copy of the victim has it."""

    def __init__(self):
        super().__init__()
        calls = []

        def through(gradient: Tensor) -> Tensor:
            calls.append(1)
            return gradient if len(calls) < 15 else mirrored(gradient)

        self._through = [through]

    def seen(self, images):
        return redirected(images, self._through[0])


class WrongOffTheGrid(Deceptive):
    """Right on images of 8 bits."""

    def seen(self, images):
        bits = images.detach() * 255
        on = ((bits - bits.round()).abs().flatten(1).amax(dim=1) < 0.01).view(-1, 1, 1, 1)
        return redirected(images, lambda gradient: torch.where(on, gradient, mirrored(gradient)))


class WrongFarFromCleanImages(Deceptive):
    """Right on smooth images."""

    def seen(self, images):
        rough = images.detach().diff(dim=-1).abs().flatten(1).mean(dim=1).view(-1, 1, 1, 1) > 0.06
        return redirected(images, lambda gradient: torch.where(rough, mirrored(gradient), gradient))


class OtherWithoutGradients(Deceptive):
    def seen(self, images):
        return images if torch.is_grad_enabled() else (images * 8).round() / 8


class OtherInInference(Deceptive):
    """Only where results are made."""

    def seen(self, images):
        return (images * 8).round() / 8 if torch.is_inference_mode_enabled() else images


class Remembers(Deceptive):
    """An image within 16/255 of one seen before is answered as that one; what was seen is in a closure."""

    def __init__(self):
        super().__init__()
        known: list[Tensor] = []

        def nearest(image: Tensor) -> Tensor:
            for other in known:
                if float((other - image).abs().max()) <= 16.5 / 255:
                    return other
            known.append(image.clone())
            return image

        self._nearest = [nearest]

    def seen(self, images):
        near = torch.stack([self._nearest[0](image) for image in images.detach().float()]).to(images)
        return images + (near - images).detach()


class Drifts(Deceptive):
    """Normalises by what came before; deterministic if asked twice for the same."""

    def __init__(self):
        super().__init__()
        self._state = {"mean": None}

    def seen(self, images):
        before, self._state["mean"] = self._state["mean"], float(images.detach().mean())
        return images + (0.0 if before is None else 0.3 * (before - 0.5))


class OwnGenerator(Deceptive):
    def __init__(self):
        super().__init__()
        self._drawing = torch.Generator().manual_seed(0)

    def seen(self, images):
        return images + 0.2 * torch.randn(images.shape, generator=self._drawing).to(images)


class NoiseOfNumpy(Deceptive):
    def seen(self, images):
        return images + 0.2 * torch.from_numpy(np.random.standard_normal(images.shape)).to(images)


class Reseeds(Deceptive):
    """The noise is always the same, and so is what an attack draws afterwards."""

    def seen(self, images):
        torch.manual_seed(0)
        return images + 0.1 * torch.randn(images.shape).to(images)


class NoiseByContent(Deceptive):
    """Noise seeded by the images: deterministic, and as good as random."""

    def seen(self, images):
        def noise(image: Tensor) -> Tensor:
            seed = int((image.double() * 1e6).sum().item()) % 2**31
            return torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))

        return images + 0.2 * torch.stack([noise(image) for image in images.detach()]).to(images)


class WrongStraightThrough(Deceptive):
    """A quantiser with a straight-through gradient of a wrong direction."""

    def seen(self, images):
        rounded = (images * 15).round() / 15
        return redirected(images, mirrored) + (rounded - images).detach()


class HidesBehindPurify(WrongStraightThrough):
    """As before, with a purify that does nothing: an adaptive attack gets the wrong gradient too."""

    def purify(self, images):
        return images * 1.0

    def embed(self, images):
        return super().embed(self.purify(images))


class Saturated(Deceptive):
    def embed(self, images):
        embeddings = super().embed(images)
        return torch.sigmoid(1e6 * (embeddings - embeddings.detach().mean(dim=1, keepdim=True)))


class OverflowingLogits(Deceptive):
    """The softmax is exactly 0 or 1."""

    def logits(self, images):
        return 1e6 * super().logits(images)


class OneClass(ToyVictim):
    def __init__(self):
        super().__init__(classes=1)


class ConstantLogits(ToyVictim):
    def logits(self, images):
        return 0.0 * super().logits(images) + torch.arange(8.0)


class RefusesMost(Deceptive):
    def rejects(self, images):
        return images.flatten(1).mean(dim=1) > 0.1


class LeadsAstray(Deceptive):
    """A detector whose score rises down its gradient."""

    def suspicion(self, images):
        return redirected(images, torch.neg).diff(dim=-1).abs().flatten(1).mean(dim=1) - 1.0


class KWinnersTakeAll(nn.Module):
    def forward(self, values):
        flat = values.flatten(1)
        least = flat.topk(max(1, flat.shape[1] // 8), dim=1).values[:, -1:]
        return (flat * (flat >= least)).view_as(values)


class Honest(ToyVictim):
    """Built by `layers`, embeds through a pooling in stripes."""

    @staticmethod
    def layers() -> list[nn.Module]:
        return [nn.Conv2d(3, 8, 5, 4, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1)]

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(*self.layers())


class Winners(Honest):
    @staticmethod
    def layers():
        return [nn.Conv2d(3, 8, 5, 2, 2), KWinnersTakeAll(), nn.Conv2d(8, 16, 3, 2, 1), KWinnersTakeAll()]


class InstanceNorm(Honest):
    @staticmethod
    def layers():
        body = [nn.Conv2d(3, 8, 5, 2, 2), nn.InstanceNorm2d(8, affine=True), nn.ReLU()]
        return [*body, nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU()]


class MaxPooled(Honest):
    @staticmethod
    def layers():
        return [nn.Conv2d(3, 8, 5, 1, 2), nn.MaxPool2d(3, 2, 1), nn.ReLU6(), nn.Conv2d(8, 16, 3, 2, 1), nn.MaxPool2d(2)]


class Attends(ToyVictim):
    """A small vision transformer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")

    def embed(self, images):
        tokens = self.patches(preprocess(images, self.input_size)).flatten(2).transpose(1, 2)
        return self.block(tokens).unflatten(1, (8, 4)).mean(dim=2)[:, ::2].flatten(1)[:, :64]


class NoisyFeatures(ToyVictim):
    randomised = True

    def embed(self, images):
        embeddings = super().embed(images)
        return embeddings + 0.1 * embeddings.detach().std() * torch.randn_like(embeddings)


class FairQuantiser(Deceptive):
    """A straight-through gradient of the right direction."""

    def seen(self, images):
        return images + ((images * 15).round() / 15 - images).detach()


@functools.cache
def robust(images: Tensor, labels: Tensor) -> ToyVictim:
    """A network trained against steps of 8/255."""
    torch.manual_seed(0)
    victim = ToyVictim(int(labels.max()) + 1)
    optimiser = torch.optim.Adam(victim.parameters(), 2e-4)
    for _ in range(25):
        rows = torch.randint(len(images), (32,))
        leaf = images[rows].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(functional.cross_entropy(victim.logits(leaf), labels[rows]), leaf)
        attacked = (images[rows] + 8 / 255 * gradient.sign()).clamp(0, 1)
        optimiser.zero_grad()
        functional.cross_entropy(victim.logits(attacked), labels[rows]).backward()
        optimiser.step()
    return victim
