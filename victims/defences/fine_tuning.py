"""The frame of defences that fine-tune a victim: batches, optimiser, losses, and resuming after an interruption."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from abc import abstractmethod
from collections.abc import Iterator
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
    TrainingData,
    Victim,
    to_cpu,
)
from reid_attack_bench.contracts.snapshot import (
    below,
    global_random,
    moments_of,
    restore_global_random,
    restore_moments,
)
from reid_attack_bench.data.sampling import pk_batches
from reid_attack_bench.errors import BenchError
from reid_attack_bench.validation import Count, NonNegative, Positive, Share, check_settings

from ..augmentation import flip_shift_erase

CHECKPOINT_SECONDS = 60.0  # between checkpoints; does not affect results


@dataclass(frozen=True)
class FitBatch:
    """One training batch.

    Attributes:
        images: N×3×H×W in [0, 1], augmented.
        identities: int64 N.
        drawn: random numbers of the defence for this batch, see `FineTuning.draw`.
    """

    images: Tensor
    identities: Tensor
    drawn: Tensor


@dataclass(frozen=True, kw_only=True)
class FineTuning(LearnedDefence):
    """Base class of defences that fine-tune a copy of the victim.

    Attributes:
        name: for messages.
        steps: training batches.
        batch_identities, batch_instances: P identities and K images of each per batch.
        learning_rate: peak of a one-cycle schedule over Adam.
        triplet_weight, margin: batch-hard triplet loss.
        label_smoothing: label smoothing of the cross entropy.
        batch_norm: "frozen" keeps the statistics of the clean training. "updated" normalises by the statistics of each
            training batch, and follows them.
        shifts: also translate the training images, by up to 1/16 of each side.
    """

    name: ClassVar[str]
    steps: Count = 300
    batch_identities: Annotated[int, Field(ge=2)] = 8
    batch_instances: Annotated[int, Field(ge=2)] = 2
    learning_rate: Positive = 1e-3
    triplet_weight: NonNegative = 1.0
    margin: NonNegative = 0.3
    label_smoothing: Share = 0.1
    batch_norm: Literal["frozen", "updated"] = field(default="frozen", metadata=ADDED_LATER)
    shifts: bool = field(default=False, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        check_settings(self, self.name)

    @abstractmethod
    def loss(self, model: Victim, batch: FitBatch, memory: State) -> Tensor:
        """The loss of one batch, a number; `memory` is what `remember` returned, and may be changed."""

    @abstractmethod
    def draw(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Random numbers for the batch of `images`, on the CPU, the same number of them for each batch."""

    def remember(self, data: TrainingData, device: torch.device) -> State:
        """Tensors that are kept between batches and in checkpoints, besides weights."""
        return {}

    def after_step(self, memory: State) -> None:
        """Called after each step of the optimiser, with the gradients of the backward pass still in place."""

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
        memory = self.remember(data, context.device)
        saves = _Saves(self.name, context, model, optimiser, memory)
        for step in range(saves.resume(batches, schedule), self.steps):
            loss = self.loss(model, next(batches), memory)
            if not math.isfinite(loss.item()):
                raise BenchError(f"{self.name.replace('-', ' ')} diverged at step {step}: lower learning_rate")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            self.after_step(memory)
            context.progress(step + 1, self.steps, f"loss {loss.item():.2f}")
            saves.after(step + 1, self.steps)
        return to_cpu(model.state_dict())

    def defended(self, victim: Victim, state: State | None) -> Victim:
        """A copy of `victim` with the weights in `state`."""
        assert state is not None  # a LearnedDefence always gets one
        defended = copy.deepcopy(victim)
        defended.load_state_dict(state)
        return defended

    def answers(self, model: Victim, images: Tensor, identities: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and logits in training, of N images whose `identities` (int64) are to be among the classes.

        Raises:
            BenchError: they are not.
        """
        with _batch_statistics(model, self.batch_norm == "updated"):
            embeddings, logits = model.outputs(images)
        if logits is None or logits.shape[1] <= int(identities.max()):
            raise BenchError(
                f"{self.name.replace('-', ' ')} needs a victim with logits over its training identities; {model.name} "
                "has none"
            )
        return embeddings, logits

    def triplet(self, embeddings: Tensor, identities: Tensor, victim: Victim) -> Tensor:
        """Batch-hard triplet loss (Hermans et al., arXiv 1703.07737) on the distance of `victim`, weighted."""
        return self.triplet_weight * _triplet(embeddings, identities, victim, self.margin)

    def _batches(self, data: TrainingData, context: FitContext) -> Iterator[FitBatch]:
        generator, device = context.generator, context.device
        for rows in pk_batches(data.identities, self.batch_identities, self.batch_instances, generator):
            clean, identities = data.batch(rows, device)
            flipped = torch.rand(len(clean), generator=generator) < 0.5
            clean = torch.where(flipped.to(device)[:, None, None, None], clean.flip(-1), clean)
            if self.shifts:
                clean = flip_shift_erase(clean, erasing=0.0)
            yield FitBatch(clean, identities, self.draw(clean, generator).to(device))


class _Saves:
    """Intermediate states of a fit, in `context.checkpoint` if there is one."""

    def __init__(
        self, name: str, context: FitContext, model: Victim, optimiser: torch.optim.Optimizer, memory: State
    ) -> None:
        self._name, self._memory = name, memory
        self._checkpoint, self._device, self._generator = context.checkpoint, context.device, context.generator
        self._model, self._optimiser = model, optimiser
        self._saved_at = time.monotonic()

    def after(self, done: int, steps: int) -> None:
        """Save the state after `done` of `steps`, if the last save is old enough."""
        if self._checkpoint is None or done == steps or time.monotonic() - self._saved_at < CHECKPOINT_SECONDS:
            return
        state = {f"model.{name}": tensor for name, tensor in self._model.state_dict().items()}
        state |= {f"memory.{name}": tensor for name, tensor in self._memory.items()}
        state |= moments_of(self._optimiser, "moments") | global_random(self._device)
        state |= {"random": self._generator.get_state()}
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
            self._model.load_state_dict(below("model", saved))
            self._memory.update({name: value.to(self._device) for name, value in below("memory", saved).items()})
            restore_moments(self._optimiser, "moments", saved)
            done = int(saved["done"])
            for _ in range(done):
                next(batches)
                self._optimiser.step()  # no gradients yet: changes nothing, but the schedule expects it
                schedule.step()
            if not torch.equal(self._generator.get_state(), saved["random"]):
                raise ValueError("other batches")
            restore_global_random(saved, self._device)
        except (KeyError, ValueError, RuntimeError) as error:
            raise BenchError(
                f"{self._name}: the checkpoint of this fit does not belong to these settings, data and seed: delete it "
                "and fit again"
            ) from error
        return done


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


def _triplet(embeddings: Tensor, identities: Tensor, victim: Victim, margin: float) -> Tensor:
    matrix = victim.compare(embeddings, embeddings).clamp_min(1e-12)
    matrix = matrix.sqrt() if victim.distance == "euclidean" and not victim.own_comparison else matrix
    same = identities[:, None] == identities[None, :]
    farthest_same = matrix.masked_fill(~same, -math.inf).max(dim=1).values
    nearest_other = matrix.masked_fill(same, math.inf).min(dim=1).values
    return functional.relu(farthest_same - nearest_other + margin).mean()
