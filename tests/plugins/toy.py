"""Small victims and attacks as a user would write them, for tests."""

import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from reid_attack_bench.contracts import Attack, LearnedAttack, QueryAttack, Recipe, Victim, preprocess


class ToyVictim(Victim):
    """Two convolutions; deterministic weights."""

    input_size = (64, 32)
    distance = "cosine"

    def __init__(self, classes: int = 8, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 5, 4, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1))
        self.classifier = nn.Linear(16 * 4, classes)

    def embed(self, images):
        features = self.body(preprocess(images, self.input_size))
        return functional.adaptive_avg_pool2d(features, (4, 1)).flatten(1)

    def logits(self, images):
        return self.classifier(self.embed(images))


@dataclass(frozen=True)
class ToyRecipe(Recipe):
    """A toy that the bench trains; `die_in` kills the process at that moment unless the marker is there."""

    seed: int = 0
    steps: int = 4
    epochs: ClassVar[int] = 1

    def fit(self, data, context):
        die_once("train")
        victim = ToyVictim(data.identity_count, self.seed)
        optimiser = torch.optim.Adam(victim.parameters(), 1e-3)
        for step in range(self.steps):
            rows = torch.randint(len(data.images), (16,), generator=context.generator).numpy()
            images, identities = data.batch(rows)
            loss = functional.cross_entropy(victim.logits(images), identities)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            context.progress(step + 1, self.steps, "")
        return {**victim.state_dict(), "classes": torch.tensor(data.identity_count)}

    def load(self, state):
        state = dict(state)
        victim = ToyVictim(int(state.pop("classes")))
        victim.load_state_dict(state)
        return victim


@dataclass(frozen=True)
class Learner(LearnedAttack):
    """An attack that learns one universal noise, badly."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})

    def fit(self, source, data, threat, context):
        die_once("fit")
        images, _ = data.batch(range(8))
        images.requires_grad_(True)
        (gradient,) = torch.autograd.grad(source.embed(images).square().sum(), images)
        return {"noise": gradient.mean(dim=0, keepdim=True).sign() * threat.radius}

    def craft(self, source, batch, threat, generator, state=None):
        die_once("craft")
        assert batch.identities is None
        assert batch.references is None
        return threat.project(batch.images + state["noise"], batch.images)


@dataclass(frozen=True)
class Cheat(Attack):
    """Goes over every budget."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def craft(self, source, batch, threat, generator):
        assert source is None
        return (batch.images + (threat.epsilon + 3) / 255).clamp(0, 1)


@dataclass(frozen=True)
class Asker(QueryAttack):
    """Asks about random corners of the ball and keeps the one whose answer differs most from the clean one.

    `greed` more queries than its budget are asked, and the correct gallery images if `labels`.
    """

    form: str = "embedding"
    greed: int = 0
    labels: bool = False

    @property
    def needs(self):
        return frozenset({self.form})

    def search(self, oracle, batch, threat, generator):
        if self.labels:
            oracle.correct()
        ask = {"embedding": oracle.embed, "distances": oracle.distances, "ranking": oracle.ranking}[self.form]
        clean, best = ask(batch.images), batch.images
        furthest = -torch.ones(len(best))
        for _ in range(oracle.budget - 1 + self.greed):
            noise = torch.rand(best.shape, generator=generator).sub(0.5).sign() * threat.radius
            images = threat.project(batch.images + noise, batch.images)
            moved = (ask(images) != clean).float().sum(dim=1)
            best = torch.where((moved > furthest).view(-1, 1, 1, 1), images, best)
            furthest = torch.maximum(furthest, moved)
        return best


class WithoutLogits(ToyVictim):
    """Embeds, and has no classifier."""

    classifies = False

    def logits(self, images):
        return None


@dataclass(frozen=True)
class Stubborn(Attack):
    """Has no form without logits."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradients", "logits"})

    def craft(self, source, batch, threat, generator, state=None):
        return batch.images


class NanVictim(ToyVictim):
    def embed(self, images):
        return super().embed(images) * float("nan")


class FlatVictim(ToyVictim):
    def embed(self, images):
        return super().embed(images).flatten()


class DetachedVictim(ToyVictim):
    def embed(self, images):
        return super().embed(images.detach()).detach()


class TargetOnly(DetachedVictim):
    differentiable = False


def die_once(moment: str) -> None:
    """End the process the first time that the test asks for at this moment: as the file says, or by SIGKILL."""
    folder = os.environ.get("TOY_DIES")
    if folder:
        try:
            how = (Path(folder) / moment).read_text()
            (Path(folder) / moment).unlink()
        except FileNotFoundError:  # not asked for, or another worker was first
            return
        if how == "exit":
            ctypes.CDLL(None)._exit(0)  # os._exit is the error of a step
        if how == "child" and not os.fork():  # it holds what the worker holds, its pipe too
            time.sleep(60)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
