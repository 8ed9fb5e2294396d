"""Victims with a comparison of their own, as a user would write them: parts with visibility, and aligned stripes."""

import torch
from torch import nn
from torch.nn import functional

from reid_attack_bench.contracts import Victim, preprocess

FAR = 1e3
"""Distance of two images without a part in common."""


class Parts(Victim):
    """Four stripes; a dark one is not visible. The distance of BPBreID: the mean over parts visible in both images."""

    input_size = (64, 32)

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 5, 4, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1))

    def embed(self, images):
        parts = functional.adaptive_avg_pool2d(self.body(preprocess(images, self.input_size)), (4, 1))
        light = functional.adaptive_avg_pool2d(images, (4, 1)).mean(dim=(1, 3))
        return {"parts": parts.flatten(2).mT, "visible": light > 0.4}

    def compare(self, query, gallery):
        apart = torch.cdist(query["parts"].transpose(0, 1), gallery["parts"].transpose(0, 1))  # K×Q×G
        both = (query["visible"][:, None] & gallery["visible"][None]).permute(2, 0, 1)
        mean = (apart * both).sum(dim=0) / both.sum(dim=0).clamp_min(1)
        return torch.where(both.any(dim=0), mean, FAR)


class Stripes(Parts):
    """The local distance of AlignedReID: the shortest path through the distances of stripes, from top to bottom."""

    def embed(self, images):
        parts = functional.adaptive_avg_pool2d(self.body(preprocess(images, self.input_size)), (4, 1))
        return functional.normalize(parts.flatten(2).mT, dim=2)

    def compare(self, query, gallery):
        difference = query[:, None, :, None] - gallery[None, :, None]
        apart = (difference.square().sum(dim=4) + 1e-12).sqrt()
        apart = (apart.exp() - 1) / (apart.exp() + 1)
        stripes = apart.shape[2]
        path = [[apart[..., 0, 0]] * stripes for _ in range(stripes)]
        for i in range(stripes):
            for j in range(stripes):
                before = [path[k][m] for k, m in ((i - 1, j), (i, j - 1)) if min(k, m) >= 0]
                if before:
                    path[i][j] = apart[..., i, j] + (torch.minimum(*before) if len(before) == 2 else before[0])
        return path[-1][-1]


class Hashed(Parts):
    """A comparison that counts, without gradients."""

    differentiable_comparison = False

    def compare(self, query, gallery):
        codes = [(each["parts"] > each["parts"].mean(dim=(1, 2), keepdim=True)).flatten(1) for each in (query, gallery)]
        return (codes[0][:, None] != codes[1]).sum(dim=2).float()


class Careless(Hashed):
    """Does not say so."""

    differentiable_comparison = True


class Everyone(Parts):
    """Compares with the other images of a batch."""

    def compare(self, query, gallery):
        found = super().compare(query, gallery)
        return found - found.mean()


class Lost(Parts):
    def compare(self, query, gallery):
        return super().compare(query, gallery) * float("nan")


class Nested(Stripes):
    """The same stripes in a tree."""

    def embed(self, images):
        parts = super().embed(images)
        return [parts[:, 0], {"rest": (parts[:, 1:], torch.arange(len(images)))}]

    def compare(self, query, gallery):
        parts = [torch.cat([each[0][:, None], each[1]["rest"][0]], dim=1) for each in (query, gallery)]
        return super().compare(*parts)
