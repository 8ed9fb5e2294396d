"""A victim that uses cameras, on images that show theirs: it notices an image that comes with the camera of another.

The camera of an image is the colour channel that is brightest on average; it survives every perturbation of 8/255, and
shifts, flips and scaling. A grey image, such as noise, shows none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_attack_bench.contracts import Recipe, Victim, preprocess

CAMERAS = 3

GREY = 0.155
"""Least lead of a channel that shows a camera; coloured images have almost twice that, and noise far less."""


def coloured(cameras: np.ndarray, identities: np.ndarray, size: tuple[int, int] = (64, 32)) -> np.ndarray:
    """uint8 N×H×W×3: images of people, each in the colour of its camera."""
    rng = np.random.default_rng(0)
    people = np.random.default_rng(1).integers(-25, 26, (int(identities.max()) + 1, 8, 1, 1))
    bands = people[identities].repeat(size[0] // 8, axis=1)
    lead = np.eye(CAMERAS)[cameras][:, None, None] * 70.0
    return np.clip(90 + bands + lead + rng.normal(0, 8, (len(cameras), *size, 3)), 0, 255).astype(np.uint8)


def shown(images: Tensor) -> Tensor:
    """The cameras that images show, int64 N; −1 for grey ones."""
    means = images.mean(dim=(2, 3))
    first, second = means.topk(2, dim=1).values.unbind(dim=1)
    return torch.where(first - second > GREY, means.argmax(dim=1), -1)


@dataclass
class Seen:
    """Numbers of images by what they came with: their own camera, none, or that of another."""

    right: int = 0
    unknown: int = 0
    grey: int = 0
    wrong: list[Any] = field(default_factory=list)


SEEN = Seen()


class CameraAware(Victim):
    """Two convolutions and side information: each camera shifts the features, an unknown one by their mean."""

    input_size = (64, 32)
    distance = "cosine"
    uses_cameras = True

    def __init__(self, classes: int = 8, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Sequential(nn.Conv2d(3, 8, 5, 4, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1))
            self.side = nn.Embedding(CAMERAS, 16 * 4)
            self.classifier = nn.Linear(16 * 4, classes)

    def embed(self, images: Tensor, cameras: Tensor) -> Tensor:
        self.note(images, cameras)
        side = torch.cat([self.side.weight, self.side.weight.mean(dim=0, keepdim=True)])[cameras]  # the last is −1
        features = self.body(preprocess(images, self.input_size))
        return functional.adaptive_avg_pool2d(features, (4, 1)).flatten(1) + 0.1 * side

    def logits(self, images: Tensor, cameras: Tensor) -> Tensor:
        return self.classifier(self.embed(images, cameras))

    def note(self, images: Tensor, cameras: Tensor) -> None:
        assert type(images) is Tensor
        assert cameras.dtype == torch.int64
        assert cameras.shape == images.shape[:1]
        there = shown(images.detach().float())
        SEEN.right += int((cameras == there)[there >= 0].sum())
        SEEN.unknown += int((cameras == -1)[there >= 0].sum())
        SEEN.grey += int((there < 0).sum())
        wrong = (cameras != there) & (cameras != -1) & (there >= 0)
        SEEN.wrong += list(zip(cameras[wrong].tolist(), there[wrong].tolist(), strict=True))


class Suspicious(CameraAware):
    """With a detector of its own that uses cameras too."""

    def suspicion(self, images: Tensor, cameras: Tensor) -> Tensor:
        return (self.embed(images.flip(-1), cameras) - self.embed(images, cameras)).norm(dim=1) - 0.5


class Forgetful(CameraAware):
    """Declares cameras and takes none."""

    def embed(self, images: Tensor) -> Tensor:  # type: ignore[override]
        return images.mean(dim=(2, 3))


class Narrow(CameraAware):
    """Knows its own cameras only."""

    def embed(self, images: Tensor, cameras: Tensor) -> Tensor:
        return super().embed(images, cameras) + self.side(cameras)


class Deaf(CameraAware):
    """Is told cameras and ignores them."""

    def embed(self, images: Tensor, cameras: Tensor) -> Tensor:
        return super().embed(images, torch.full_like(cameras, -1))

    def note(self, images: Tensor, cameras: Tensor) -> None:
        pass


@dataclass(frozen=True)
class CameraRecipe(Recipe):
    """A camera-aware victim that the bench trains: the batch's cameras are those of the training data."""

    steps: int = 3

    def fit(self, data, context):
        victim = CameraAware(data.identity_count)
        optimiser = torch.optim.Adam(victim.parameters(), 1e-3)
        for step in range(self.steps):
            rows = torch.randint(len(data.images), (8,), generator=context.generator).numpy()
            images, identities = data.batch(rows)
            assert type(images) is Tensor
            loss = functional.cross_entropy(victim.logits(images, torch.from_numpy(data.cameras[rows])), identities)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            context.progress(step + 1, self.steps, "")
        return {**victim.state_dict(), "classes": torch.tensor(data.identity_count)}

    def load(self, state):
        state = dict(state)
        victim = CameraAware(int(state.pop("classes")))
        victim.load_state_dict(state)
        return victim
