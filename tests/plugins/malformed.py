"""Victims that are wrong in one way each, as users write them."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from reid_attack_bench.contracts import preprocess
from reid_attack_bench.jobs.skeleton import MyDefence


class ReturnsTuple(MyDefence):
    def embed(self, images):
        return super().embed(images), None


class OneRowForAll(MyDefence):
    def embed(self, images):
        return super().embed(images).mean(dim=0, keepdim=True)


class SqueezesTheBatch(MyDefence):
    def embed(self, images):
        return super().embed(images).squeeze()


class NotPooled(MyDefence):
    def embed(self, images):
        return functional.adaptive_avg_pool2d(preprocess(images, self.input_size), (8, 2))


class Whole(MyDefence):
    def embed(self, images):
        return super().embed(images).mul(100).long()


class NotANumber(MyDefence):
    def embed(self, images):
        return super().embed(images).log()


class NotANumberSometimes(MyDefence):
    def embed(self, images):
        return torch.where(images[:, :1, 0, 0] > 0.5, torch.nan, super().embed(images))


class InNumpy(MyDefence):
    def embed(self, images):
        return np.asarray(super().embed(images).detach())


class Fails(MyDefence):
    def embed(self, images):
        return self.network(images)


class Detached(MyDefence):
    def embed(self, images):
        return super().embed(images.detach())


class InfiniteGradient(MyDefence):
    def embed(self, images):
        embeddings = super().embed(images)
        return embeddings + (embeddings - embeddings).square().sum(dim=1, keepdim=True).sqrt()


class DropsOut(MyDefence):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def train(self, mode=True):
        return super().train(True)

    def embed(self, images):
        return self.dropout(super().embed(images))


class NormalisesOverTheBatch(MyDefence):
    def embed(self, images):
        embeddings = super().embed(images)
        return functional.normalize(embeddings - embeddings.mean(dim=0), dim=0) if len(images) > 1 else embeddings


class RunningStatistics(MyDefence):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def embed(self, images):
        self.seen += len(images)
        return super().embed(images)


class Noisy(MyDefence):
    def embed(self, images):
        return super().embed(images + 0.5 * torch.randn_like(images))


class Manhattan(MyDefence):
    distance = "manhattan"


class WrongLogits(MyDefence):
    def logits(self, images):
        return self.embed(images).argmax(dim=1)


class OutputsDisagree(MyDefence):
    def logits(self, images):
        return self.embed(images)[:, :5]

    def outputs(self, images):
        return 2 * self.embed(images), self.logits(images)


class Changes(MyDefence):
    def embed(self, images):
        return super().embed(images.mul_(0.5) if not images.requires_grad else images * 0.5)


class Valid(MyDefence):
    """Nothing wrong: it has learnt from bright and normalised images, and sees little in any other."""

    def embed(self, images):
        ready = self.ready(images)
        bright = functional.adaptive_avg_pool2d(ready.clamp(0.98, 2.4), (8, 1)).flatten(1)
        return torch.cat((bright, 0.01 * ready[:, :1, 0, 0].clamp(-3, 3)), dim=1)

    def ready(self, images):
        return preprocess(images, self.input_size)


class NormalisesTwice(Valid):
    def ready(self, images):
        return preprocess(super().ready(images), self.input_size)


class NeverNormalises(Valid):
    def ready(self, images):
        return images


class Expects255(Valid):
    def ready(self, images):
        return super().ready(images / 255)


class Rounds(MyDefence):
    def embed(self, images):
        return super().embed((images * 7).round() / 7)


class WrongBackward(MyDefence):
    class Scramble(torch.autograd.Function):
        @staticmethod
        def forward(ctx, images):
            return images.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient.flatten(1).flip(1).view_as(gradient) * torch.randn_like(gradient)

    def embed(self, images):
        return super().embed(self.Scramble.apply(images))


class PurifiesNothing(MyDefence):
    def purify(self, images):
        return images.clamp(0.1, 0.9)

    def embed(self, images):
        return functional.adaptive_avg_pool2d(images, (8, 2)).flatten(1)


class PurifiesOutOfRange(MyDefence):
    def purify(self, images):
        return images * 255


class RejectsWithScores(MyDefence):
    def rejects(self, images):
        return images.mean(dim=(1, 2, 3))


class Constant(MyDefence):
    def embed(self, images):
        return 1 + 1e-9 * super().embed(images)


class WrongDistance(MyDefence):
    """One number of the embedding says who it is only beside the others: its length says how bright the day is."""

    def embed(self, images):
        embeddings = functional.normalize(super().embed(images) - 0.5, dim=1)
        return embeddings * (0.2 + 20 * images[:, 0, 0, 0]).unsqueeze(1)


class DefendedByPurify(MyDefence):
    """Nothing wrong: a rounding in its place."""

    def purify(self, images):
        return (images * 7).round() / 7


class RandomAsDeclared(MyDefence):
    """Nothing wrong: noise, and it says so."""

    randomised = True

    def embed(self, images):
        return super().embed(images + 0.5 * torch.randn_like(images))


class HidesItsNetwork(MyDefence):
    def __init__(self):
        super().__init__()
        self.networks = [nn.Dropout(0.5)]
