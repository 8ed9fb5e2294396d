"""Adversarial training with a metric objective (Bai et al., TPAMI 2021, arXiv 1901.10650) or the mis-ranking objective
(Wang et al., CVPR 2020, arXiv 2004.04199).

Bai et al. train on adversarial images that are crafted once. Here they are crafted on the current model in every step
(Madry et al., arXiv 1706.06083), which is the stronger defence. The given model, already trained, is fine-tuned.
`consistency` adds the penalty of TRADES (Zhang et al., ICML 2019, arXiv 1901.08573) with the distance of embeddings in
place of the divergence of predictions.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from reid_attack_bench.contracts import (
    ADDED_LATER,
    FitContext,
    LearnedDefence,
    State,
    ThreatModel,
    TrainingData,
    Victim,
    distances,
    to_cpu,
)
from reid_attack_bench.data.sampling import pk_batches
from reid_attack_bench.errors import BenchError
from reid_attack_bench.validation import Count, NonNegative, Positive, Share, check_settings

from ..augmentation import flip_shift_erase

CHECKPOINT_SECONDS = 60.0  # between checkpoints; does not affect results

Objective = Literal["metric", "mis-ranking"]


@dataclass(frozen=True)
class AdversarialTraining(LearnedDefence):
    """Fine-tune a victim on clean images and on adversarial images crafted on its current weights.

    Attributes:
        objective: objective of the adversarial images. "metric" moves the embedding of an image away from that of the
            clean image; "mis-ranking" moves it towards the farthest other identity of the batch and away from the
            nearest image of its own.
        epsilon: budget of the adversarial images, in 1/255.
        attack_steps: signed-gradient steps per adversarial image.
        steps: training batches.
        batch_identities, batch_instances: P identities and K images of each per batch.
        learning_rate: peak of a one-cycle schedule over Adam.
        clean_weight: weight of the cross entropy on clean images; that on adversarial images has the rest.
        triplet_weight, margin: batch-hard triplet loss, over clean and adversarial images together.
        label_smoothing: label smoothing of the cross entropy.
        batch_norm: "frozen" keeps the statistics of the clean training. "updated" normalises by the statistics of each
            training batch, clean and adversarial images together, and follows them; images are still crafted on the
            model in eval mode.
        shifts: also translate the training images, by up to 1/16 of each side.
        consistency: weight of the mean distance between the embeddings of an image and of its adversarial version.
    """

    version: ClassVar[int] = 1
    objective: Objective = "metric"
    epsilon: Annotated[int, Field(ge=0, le=255)] = 8
    attack_steps: Count = 2
    steps: Count = 300
    batch_identities: Annotated[int, Field(ge=2)] = 8
    batch_instances: Annotated[int, Field(ge=2)] = 2
    learning_rate: Positive = 1e-3
    clean_weight: Share = 0.3
    triplet_weight: NonNegative = 1.0
    margin: NonNegative = 0.3
    label_smoothing: Share = 0.1
    batch_norm: Literal["frozen", "updated"] = field(default="frozen", metadata=ADDED_LATER)
    shifts: bool = field(default=False, metadata=ADDED_LATER)
    consistency: NonNegative = field(default=0.0, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        check_settings(self, "adversarial-training")

    @property
    def fit_work(self) -> float:
        return 3.0 * (self.attack_steps + 2) * self.steps * self.batch_identities * self.batch_instances

    def fit(self, victim: Victim, data: TrainingData, context: FitContext) -> State:
        """Fine-tune a copy of `victim` on `data` and return its weights.

        With a `context.checkpoint` an interrupted fit resumes from the last save, with the same result.

        Raises:
            BenchError: the victim has no logits over the identities of `data`, the loss is not finite, or the
                checkpoint belongs to another fit.
        """
        model = copy.deepcopy(victim).to(context.device).eval().requires_grad_(True)
        optimiser = torch.optim.Adam(model.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=self.learning_rate, total_steps=self.steps, pct_start=0.1, cycle_momentum=False
        )
        batches = self._batches(data, context)
        saves = _Saves(context, model, optimiser)
        for step in range(saves.resume(batches, schedule), self.steps):
            clean, identities, noise = next(batches)
            model.requires_grad_(False)
            adversarial = self._adversarial(model, clean, identities, noise)
            model.requires_grad_(True)
            loss = self._loss(model, clean, adversarial, identities)
            if not math.isfinite(loss.item()):
                raise BenchError(f"adversarial training diverged at step {step}: lower learning_rate")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            context.progress(step + 1, self.steps, f"loss {loss.item():.2f}")
            saves.after(step + 1, self.steps)
        return to_cpu(model.state_dict())

    def defend(self, victim: Victim, state: State | None = None) -> Victim:
        assert state is not None  # a LearnedDefence always gets one
        defended = copy.deepcopy(victim)
        defended.load_state_dict(state)
        defended.defence = f"{self.objective} adversarial training, epsilon {self.epsilon}"
        defended.citation = "arXiv 1901.10650" if self.objective == "metric" else "arXiv 2004.04199"
        return defended

    def _batches(self, data: TrainingData, context: FitContext) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Augmented images, their identities, and the random starts of their adversarial versions, -1 to 1."""
        generator, device = context.generator, context.device
        for rows in pk_batches(data.identities, self.batch_identities, self.batch_instances, generator):
            clean, identities = data.batch(rows, device)
            flipped = torch.rand(len(clean), generator=generator) < 0.5
            clean = torch.where(flipped.to(device)[:, None, None, None], clean.flip(-1), clean)
            if self.shifts:
                clean = flip_shift_erase(clean, erasing=0.0)
            yield clean, identities, 2 * torch.rand(clean.shape, generator=generator).to(device) - 1

    def _adversarial(self, model: Victim, clean: Tensor, identities: Tensor, noise: Tensor) -> Tensor:
        threat = ThreatModel(epsilon=self.epsilon)
        current = threat.project(clean + threat.radius * noise, clean)
        objective = self._objective(model, clean, identities)
        step_size = 1.5 * threat.radius / self.attack_steps
        for _ in range(self.attack_steps):
            current = current.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(objective(current), current)
            current = threat.project(current.detach() + step_size * gradient.sign(), clean)
        return current.detach()

    def _objective(self, model: Victim, clean: Tensor, identities: Tensor) -> Callable[[Tensor], Tensor]:
        with torch.no_grad():
            reference = model.embed(clean)
        if self.objective == "metric":
            return lambda images: _paired(model.embed(images), reference, model).sum()
        same = identities[:, None] == identities[None, :]
        itself = torch.eye(len(clean), dtype=torch.bool, device=clean.device)

        def misranked(images: Tensor) -> Tensor:
            matrix = distances(model.embed(images), reference, model.distance)
            nearest_same = matrix.masked_fill(~same | itself, math.inf).min(dim=1).values
            farthest_other = matrix.masked_fill(same, -math.inf).max(dim=1).values
            return (nearest_same - farthest_other).sum()

        return misranked

    def _loss(self, model: Victim, clean: Tensor, adversarial: Tensor, identities: Tensor) -> Tensor:
        with _batch_statistics(model, self.batch_norm == "updated"):
            embeddings, logits = model.outputs(torch.cat([clean, adversarial]))
        if logits is None or logits.shape[1] <= int(identities.max()):
            raise BenchError(
                f"adversarial training needs a victim with logits over its training identities; {model.name} has none"
            )
        both = torch.cat([identities, identities])
        entropy = functional.cross_entropy(logits, both, label_smoothing=self.label_smoothing, reduction="none")
        on_clean, on_adversarial = entropy.view(2, -1).mean(dim=1)
        mixed = self.clean_weight * on_clean + (1 - self.clean_weight) * on_adversarial
        loss = mixed + self.triplet_weight * _triplet(embeddings, both, model, self.margin)
        if self.consistency > 0:
            of_clean, of_adversarial = embeddings.chunk(2)
            loss = loss + self.consistency * _paired(of_adversarial, of_clean, model).mean()
        return loss


class _Saves:
    """Intermediate states of a fit, in `context.checkpoint` if there is one."""

    def __init__(self, context: FitContext, model: Victim, optimiser: torch.optim.Optimizer) -> None:
        self._checkpoint, self._device, self._generator = context.checkpoint, context.device, context.generator
        self._model, self._optimiser = model, optimiser
        self._saved_at = time.monotonic()

    def after(self, done: int, steps: int) -> None:
        """Save the state after `done` of `steps`, if the last save is old enough."""
        if self._checkpoint is None or done == steps or time.monotonic() - self._saved_at < CHECKPOINT_SECONDS:
            return
        state = {f"model.{name}": tensor for name, tensor in self._model.state_dict().items()}
        for index, moments in self._optimiser.state_dict()["state"].items():
            state |= {f"moments.{index}.{name}": tensor for name, tensor in moments.items()}
        state |= {"random": self._generator.get_state(), "random.global": torch.random.get_rng_state()}
        if self._device.type == "cuda":
            state["random.cuda"] = torch.cuda.get_rng_state(self._device)
        self._checkpoint.save(to_cpu(state | {"done": torch.tensor(done)}))
        self._saved_at = time.monotonic()

    def resume(self, batches: Iterator[object], schedule: torch.optim.lr_scheduler.LRScheduler) -> int:
        """Restore the state that was saved last; returns the number of steps done.

        Raises:
            BenchError: the checkpoint belongs to another fit.
        """
        saved = self._checkpoint.load() if self._checkpoint else None
        if saved is None:
            return 0
        try:
            self._model.load_state_dict(_below("model.", saved))
            moments: dict[int, State] = {}
            for name, tensor in _below("moments.", saved).items():
                index, _, moment = name.partition(".")
                moments.setdefault(int(index), {})[moment] = tensor
            self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": moments})
            done = int(saved["done"])
            for _ in range(done):
                next(batches)
                self._optimiser.step()  # no gradients yet: changes nothing, but the schedule expects it
                schedule.step()
            if not torch.equal(self._generator.get_state(), saved["random"]):
                raise ValueError("other batches")
            torch.random.set_rng_state(saved["random.global"])
            if "random.cuda" in saved:
                torch.cuda.set_rng_state(saved["random.cuda"], self._device)
        except (KeyError, ValueError, RuntimeError) as error:
            raise BenchError(
                "adversarial-training: the checkpoint of this fit does not belong to these settings, data and seed: "
                "delete it and fit again"
            ) from error
        return done


def _below(prefix: str, state: State) -> State:
    return {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}


@contextlib.contextmanager
def _batch_statistics(model: nn.Module, updated: bool) -> Iterator[None]:
    """Let the batch normalisation of a model in eval mode use and follow the statistics of its batches."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    for layer in layers:
        layer.train(updated)
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()


def _paired(first: Tensor, second: Tensor, victim: Victim) -> Tensor:
    """Distances between equal rows, by the distance of `victim`: N values."""
    if victim.distance == "cosine":
        return 1 - functional.cosine_similarity(first, second)
    return (first - second).square().sum(dim=1)


def _triplet(embeddings: Tensor, identities: Tensor, victim: Victim, margin: float) -> Tensor:
    """Batch-hard triplet loss (Hermans et al., arXiv 1703.07737) on the distance of `victim`."""
    matrix = distances(embeddings, embeddings, victim.distance).clamp_min(1e-12)
    matrix = matrix.sqrt() if victim.distance == "euclidean" else matrix
    same = identities[:, None] == identities[None, :]
    farthest_same = matrix.masked_fill(~same, -math.inf).max(dim=1).values
    nearest_other = matrix.masked_fill(same, math.inf).min(dim=1).values
    return functional.relu(farthest_same - nearest_other + margin).mean()
