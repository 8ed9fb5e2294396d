"""Training of the generator: batches, optimiser steps, validation, and resuming after an interruption."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import FitContext, State, ThreatModel, TrainingData, Victim, to_cpu
from reid_attack_bench.contracts.snapshot import (
    below,
    global_random,
    moments_of,
    restore_global_random,
    restore_moments,
)
from reid_attack_bench.data.sampling import pk_batches
from reid_attack_bench.errors import BenchError

from .mask import gumbel
from .networks import Networks
from .objective import Losses, Objective
from .settings import Settings
from .validation_set import ValidationSet, split_identities

LOSS_COLUMNS = (
    "step",
    "total",
    "mis-ranking",
    "misclassification",
    "perception",
    "gan",
    "discriminator",
    "largest_noise",
)
"""Columns of "history.losses", one row per step: weighted losses, and the largest noise in 1/255."""

VALIDATION_COLUMNS = ("step", "rank1", "mAP")
"""Columns of "history.held_out", one row per validation, in percent. Step 0 is the clean queries."""

INVISIBLE_STEPS = 20  # consecutive steps without visible noise after which the fit fails

CHECKPOINT_SECONDS = 60.0  # between checkpoints; does not affect results


class Training:
    """One fit. Its changing state is saved by `_snapshot` and restored by `_resume`."""

    def __init__(
        self,
        settings: Settings,
        networks: Networks,
        source: Victim,
        data: TrainingData,
        threat: ThreatModel,
        context: FitContext,
    ) -> None:
        self.settings, self.source, self.threat, self.context = settings, source, threat, context
        self.checkpoint = context.checkpoint
        # with epsilon 0 there is nothing to learn
        self.steps = settings.steps if threat.epsilon else 0
        self.networks = networks.train()
        self.discriminator_weights = list(networks.discriminator.parameters())
        self.optimisers = {
            "generator": _adam(settings, networks.generator_weights),
            "discriminator": _adam(settings, self.discriminator_weights),
        }
        share = settings.held_out if self.steps else 0.0
        parts = split_identities(data, share, settings.batch_identities, context.generator)
        self.validation = ValidationSet.of(parts, data, source, context.device) if len(parts.validation) else None
        self.objective = Objective(
            settings, source, networks, threat, context.generator, data.name, data.identity_count
        )
        self.batches = _Batches(settings, data, parts.train, context)
        self.losses: list[list[float]] = []
        self.checks: list[list[float]] = [[0, *self.validation.clean()]] if self.validation else []
        self.best: State = {}

    @property
    def done(self) -> int:
        """Steps taken."""
        return len(self.losses)

    def run(self) -> State:
        """Train the networks and return the state described in `MisRanking.fit`.

        With a `context.checkpoint` an interrupted run resumes from the last save, with bitwise the same result.
        """
        start = self.context.generator.get_state()
        self._resume(start)
        saved_at = time.monotonic()
        while self.done < self.steps and not self._is_stale():
            note = self._step()
            if self.validation and (self.done % self.settings.check_every == 0 or self.done == self.steps):
                note += self._check(self.validation)
            self.context.progress(self.done, self.steps, note)
            if self.checkpoint and self.done < self.steps and time.monotonic() - saved_at >= CHECKPOINT_SECONDS:
                self.checkpoint.save(self._snapshot(start))
                saved_at = time.monotonic()
        return {**(self.best or to_cpu(self.networks.kept.state_dict())), **self._history()}

    def _step(self) -> str:
        """One generator step, then one discriminator step, on one batch."""
        settings = self.settings
        factor = _decay(settings.decay, self.done, self.steps)
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * factor
        clean, identities = next(self.batches)
        losses = self.objective(clean, identities, mask_size(settings, self.threat, clean, self.done, self.steps))
        self._check_finite(losses)
        # Pairs (clean, adversarial) pass the discriminator once for both losses. Each backward pass is limited to the
        # weights of its own network.
        trains_discriminator = settings.gan_weight > 0
        generator, discriminator = self.optimisers["generator"], self.optimisers["discriminator"]
        generator.zero_grad(set_to_none=True)
        losses.generator.backward(inputs=self.networks.generator_weights, retain_graph=trains_discriminator)
        if trains_discriminator:
            discriminator.zero_grad(set_to_none=True)
            losses.discriminator.backward(inputs=self.discriminator_weights)
            discriminator.step()
        generator.step()
        self.losses.append(_row(self.done + 1, losses))
        self._check_visible()
        return losses.note()

    def _check(self, validation: ValidationSet) -> str:
        """Evaluate on the validation identities and keep the weights if they are the best so far."""
        rank1, precision = validation.attacked(self.networks, self.source, self.threat)
        if precision <= min((row[2] for row in self.checks[1:]), default=math.inf):
            self.best = to_cpu(self.networks.kept.state_dict())
        self.checks.append([self.done, rank1, precision])
        return f", held out Rank-1 {rank1:.1f} mAP {precision:.1f}"

    def _is_stale(self) -> bool:
        """Whether the last `patience` validations did not lower the mAP."""
        measured = [row[2] for row in self.checks[1:]]
        patience = self.settings.patience
        return 0 < patience < len(measured) and min(measured[-patience:]) > min(measured)

    def _check_finite(self, losses: Losses) -> None:
        if not (math.isfinite(losses.generator.item()) and math.isfinite(losses.discriminator.item())):
            raise BenchError(
                f"misranking: the loss is not finite at step {self.done + 1} of {self.steps} ({losses.note()}): lower "
                f"learning_rate ({self.settings.learning_rate:g}) or reid_weight ({self.settings.reid_weight:g})"
            )

    def _check_visible(self) -> None:
        # changes below half an 8-bit step are rounded away
        latest = [row[-1] for row in self.losses[-INVISIBLE_STEPS:]]
        if len(latest) == INVISIBLE_STEPS and max(latest) < 0.5:
            settings = self.settings
            raise BenchError(
                f"misranking: the noise has vanished ({INVISIBLE_STEPS} batches without a visible change, step "
                f"{self.done} of {self.steps}): raise reid_weight ({settings.reid_weight:g}) or lower "
                f"perception_weight ({settings.perception_weight:g}) and gan_weight ({settings.gan_weight:g})"
            )

    def _history(self) -> State:
        return {
            "history.losses": _table(self.losses, LOSS_COLUMNS),
            "history.held_out": _table(self.checks, VALIDATION_COLUMNS),
        }

    def _snapshot(self, start: Tensor) -> State:
        """The complete state of the training; `start` is the state of the random generator before the first batch."""
        state = {f"networks.{name}": tensor for name, tensor in self.networks.state_dict().items()}
        state |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for name, optimiser in self.optimisers.items():
            state |= moments_of(optimiser, name)
        state |= {"random.start": start, "random.now": self.context.generator.get_state()}
        return to_cpu(state | global_random(self.context.device) | self._history())

    def _resume(self, start: Tensor) -> None:
        """Restore the checkpoint, if there is one.

        Raises:
            BenchError: the checkpoint belongs to another fit.
        """
        saved = self.checkpoint.load() if self.checkpoint else None
        if saved is None:
            return
        try:
            if not torch.equal(saved["random.start"], start):
                raise ValueError("another seed")
            self.networks.load_state_dict(below("networks", saved))
            for name, optimiser in self.optimisers.items():
                restore_moments(optimiser, name, saved)
            self.best = below("best", saved)
            self.losses = saved["history.losses"].tolist()
            self.checks = saved["history.held_out"].tolist()
            for _ in range(self.done):
                self.batches.skip(self.networks.mask_head is not None)
            if not torch.equal(self.context.generator.get_state(), saved["random.now"]):
                raise ValueError("other batches")
            restore_global_random(saved, self.context.device)
        except (KeyError, ValueError, RuntimeError) as error:
            raise BenchError(
                "misranking: the checkpoint of this fit does not belong to these settings, data and seed: delete it "
                "and fit again"
            ) from error


class _Batches:
    """Augmented P×K batches without end, from the images at `indices`."""

    def __init__(self, settings: Settings, data: TrainingData, indices: np.ndarray, context: FitContext) -> None:
        self._data, self._indices, self._generator, self._device = data, indices, context.generator, context.device
        self._rows = pk_batches(
            data.identities[indices], settings.batch_identities, settings.batch_instances, context.generator
        )

    def __next__(self) -> tuple[Tensor, Tensor]:
        images, identities = self._data.batch(self._indices[next(self._rows)], self._device)
        # channels last: 20 % faster through the generator on a CPU
        return flip_and_translate(images, self._generator).contiguous(memory_format=torch.channels_last), identities

    def skip(self, masked: bool) -> None:
        """Draw and discard the random numbers of one training step."""
        rows = next(self._rows)
        for _ in rows:
            torch.rand(4, generator=self._generator)
        if masked:
            gumbel(torch.Size([len(rows), *self._data.images.shape[1:3]]), self._generator)


def _decay(share: float, step: int, steps: int) -> float:
    """Factor of the learning rate: 1, then linear to 0 over the last `share` of the steps."""
    return min(1.0, (steps - step) / max(share * steps, 1.0))


def mask_size(settings: Settings, threat: ThreatModel, images: Tensor, done: int, steps: int) -> int | None:
    """Size of the masks of N×3×H×W images after `done` of `steps`: annealed from all pixels to the budget k."""
    k, positions = threat.pixels, images.shape[-2] * images.shape[-1]
    if k is None or settings.pixel_schedule == "direct" or k >= positions:
        return k
    progress = min(2 * done / steps, 1.0)
    return round(positions * (k / positions) ** progress)


def flip_and_translate(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random horizontal flip and random translation, each with probability 0.5, of N×3×H×W images in [0, 1].

    A translation enlarges the image by 1.125 and crops a random window, as in the training of the paper's victims.
    """
    height, width = images.shape[-2:]
    size = (round(1.125 * height), round(1.125 * width))
    larger = functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
    chosen = []
    for image, large in zip(images, larger, strict=True):
        flip, translate, top, left = torch.rand(4, generator=generator).tolist()
        if translate < 0.5:
            y, x = int(top * (size[0] - height + 1)), int(left * (size[1] - width + 1))
            image = large[:, y : y + height, x : x + width]
        chosen.append(image.flip(-1) if flip < 0.5 else image)
    return torch.stack(chosen)


def _adam(settings: Settings, weights: list[torch.nn.Parameter]) -> torch.optim.Adam:
    return torch.optim.Adam(weights, settings.learning_rate, (settings.betas[0], settings.betas[1]))


def _row(step: int, losses: Losses) -> list[float]:
    parts = [losses.parts[name].item() if name in losses.parts else 0.0 for name in LOSS_COLUMNS[2:6]]
    return [step, losses.generator.item(), *parts, losses.discriminator.item(), 255 * losses.largest_noise]


def _table(rows: list[list[float]], columns: Sequence[str]) -> Tensor:
    """Rows as float64, which represents all entries exactly."""
    return torch.tensor(rows, dtype=torch.float64).view(-1, len(columns))
