"""The architectures of torchreid (Zhou & Xiang, arXiv 1910.10093), trained by the bench."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_attack_bench.contracts import (
    ADDED_LATER,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Distance,
    FitContext,
    Recipe,
    State,
    TrainingData,
    Victim,
    preprocess,
    to_cpu,
)
from reid_attack_bench.data.sampling import pk_batches
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.torchreid_import import torchreid_module
from reid_attack_bench.validation import Count, NonNegative, Positive, Share, check_settings

from .augmentation import flip_shift_erase

ARCHITECTURES = frozenset({
    "densenet121", "densenet121_fc512", "densenet161", "densenet169", "densenet201", "hacnn", "inceptionresnetv2",
    "inceptionv4", "mlfn", "mobilenetv2_x1_0", "mobilenetv2_x1_4", "mudeep", "nasnsetmobile", "osnet_ain_x0_25",
    "osnet_ain_x0_5", "osnet_ain_x0_75", "osnet_ain_x1_0", "osnet_ibn_x1_0", "osnet_x0_25", "osnet_x0_5",
    "osnet_x0_75", "osnet_x1_0", "pcb_p4", "pcb_p6", "resnet101", "resnet152", "resnet18", "resnet34", "resnet50",
    "resnet50_fc512", "resnet50_ibn_a", "resnet50_ibn_b", "resnet50mid", "resnext101_32x8d", "resnext50_32x4d",
    "se_resnet101", "se_resnet50", "se_resnet50_fc512", "se_resnext101_32x4d", "se_resnext50_32x4d", "shufflenet",
    "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0", "squeezenet1_0",
    "squeezenet1_0_fc512", "squeezenet1_1", "xception",
})  # fmt: skip
"""Architectures of torchreid 0.2.5; listed here so that planning does not import torchreid."""

_IDENTITIES = "bench.identities"  # state entry: number of classes of the stored classifier

_CHANNELS_LAST = ("osnet", "shufflenet_v2", "mobilenetv2")  # others gain nothing, or call view() on the result


def architectures() -> list[str]:
    """Names in the model factory of the installed torchreid."""
    models = torchreid_module("models")
    return sorted(vars(models)["__model_factory"])


def untrained_model(arch: str, identities: int) -> nn.Module:
    """An architecture with random weights and a classifier of `identities` classes.

    Raises:
        BenchError: unknown architecture.
    """
    known = architectures()
    if arch not in known:
        raise BenchError(f"torchreid has no architecture '{arch}': {nearest(arch, known)}")
    # pretrained=True would download weights
    return torchreid_module("models").build_model(
        arch, num_classes=identities, loss="triplet", pretrained=False, use_gpu=False
    )


class TorchreidModel(Victim):
    """A torchreid model as a victim.

    torchreid returns logits in training mode only, together with the same embedding. Only the mode of the root module
    decides this: it is switched while all layers below stay in eval mode. Logits of models with several classifiers
    (PCB, HACNN) are averaged.
    """

    def __init__(self, model: nn.Module, arch: str, input_size: tuple[int, int], distance: Distance) -> None:
        super().__init__()
        self.layout = _layout(arch)
        self.model = model.eval().to(memory_format=self.layout)
        self.name = arch
        self.input_size = input_size
        self.distance = distance
        self.mean: tuple[float, ...] = IMAGENET_MEAN
        self.std: tuple[float, ...] = IMAGENET_STD
        self.citation = "arXiv 1910.10093"

    def embed(self, images: Tensor) -> Tensor:
        return self.model(self._ready(images)).flatten(1)

    def logits(self, images: Tensor) -> Tensor | None:
        return self._both(images)[0]

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        logits, features = self._both(images)
        if isinstance(features, Tensor) and not _normalises(self.model):
            return features.flatten(1), logits
        return self.embed(images), logits

    def _both(self, images: Tensor) -> tuple[Tensor, Any]:
        self.model.training = True
        try:
            scores, features = self.model(self._ready(images))
        finally:
            self.model.training = False
        return torch.stack(tuple(_as_list(scores))).mean(dim=0), features

    def _ready(self, images: Tensor) -> Tensor:
        return preprocess(images, self.input_size, self.mean, self.std).contiguous(memory_format=self.layout)


def _layout(arch: str) -> torch.memory_format:
    """Channels last for depth-wise convolutions, which it speeds up by up to 50 % on a CPU."""
    return torch.channels_last if arch.startswith(_CHANNELS_LAST) else torch.contiguous_format


def _normalises(model: nn.Module) -> bool:
    return type(model).__name__ in ("HACNN",)  # their embedding in eval mode differs from their training features


def _as_list(value: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


@dataclass(frozen=True)
class TorchreidVictim(Recipe):
    """Train an architecture from scratch: label-smoothed cross entropy, later joined by the batch-hard triplet loss.

    Attributes:
        arch: a name in torchreid's model factory.
        input_size: (height, width) in pixels; HACNN needs (160, 64), MuDeep (256, 128).
        distance: distance that ranks its embeddings.
        epochs: passes over the training images, in P×K batches.
        batch_identities, batch_instances: P identities and K images of each per batch.
        learning_rate: peak of a one-cycle schedule over Adam (linear warm-up, cosine decay).
        warm_up: fraction of the steps over which the learning rate rises.
        triplet_weight, margin: batch-hard triplet loss (Hermans et al., arXiv 1703.07737).
        triplet_from: fraction of the steps without the triplet loss; with it from the first step, the embeddings of a
            small network collapse to a point.
        label_smoothing: label smoothing of the cross entropy.
        weight_decay: decoupled weight decay (AdamW).
        erasing: probability of random erasing. Flips (0.5) and translations (padding of 1/16) are always on.
        half_size: fraction of the steps, from the first, at half the input size, for less than half their cost
            (progressive resizing; Tan and Le, ICML 2021, arXiv 2104.00298). Only for architectures of any input size.
    """

    version: ClassVar[int] = 1
    defended: ClassVar[bool] = False
    arch: str = "osnet_x0_25"
    input_size: tuple[Count, Count] = (256, 128)
    distance: Distance = "cosine"
    epochs: Count = 60
    batch_identities: Count = 8
    batch_instances: Count = 4
    learning_rate: Positive = 2e-3
    warm_up: Share = 0.1
    triplet_from: Share = 0.5
    triplet_weight: NonNegative = 1.0
    margin: NonNegative = 0.3
    label_smoothing: Share = 0.1
    weight_decay: NonNegative = 5e-4
    erasing: Share = 0.3
    half_size: Share = field(default=0.0, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        check_settings(self, "torchreid")
        if self.arch not in ARCHITECTURES and self.arch not in (known := architectures()):
            raise BenchError(f"torchreid has no architecture '{self.arch}': {nearest(self.arch, known)}")

    def fit(self, data: TrainingData, context: FitContext) -> State:
        """Train on `data` and return the weights.

        Raises:
            BenchError: the loss is not finite, or the architecture does not support `input_size`.
        """
        layout = _layout(self.arch)
        model = self._build(data.identity_count).to(context.device).to(memory_format=layout).train()
        triplet = torchreid_module("losses").TripletLoss(margin=self.margin)
        steps = max(1, self.epochs * len(data.images) // (self.batch_identities * self.batch_instances))
        optimiser = torch.optim.AdamW(model.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=self.learning_rate, total_steps=steps, pct_start=self.warm_up, cycle_momentum=False
        )
        batches = pk_batches(data.identities, self.batch_identities, self.batch_instances, context.generator)

        def prepare(step: int) -> tuple[Tensor, Tensor]:
            images, identities = data.batch(next(batches), context.device)
            inputs = preprocess(flip_shift_erase(images, self.erasing), self._size_at(step / steps))
            return inputs.contiguous(memory_format=layout), identities

        inputs, identities = prepare(0)
        for step in range(steps):
            scores, features = self._forward(model, inputs)
            loss = _mean(
                functional.cross_entropy(s, identities, label_smoothing=self.label_smoothing) for s in _as_list(scores)
            )
            if step >= self.triplet_from * steps and self.triplet_weight > 0:
                rows = [functional.normalize(f.flatten(1)) if self.distance == "cosine" else f.flatten(1)
                        for f in _as_list(features)]  # fmt: skip
                loss = loss + self.triplet_weight * _mean(triplet(row, identities) for row in rows)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            if step + 1 < steps:
                inputs, identities = prepare(step + 1)  # overlaps with this step on a GPU; the next line waits for it
            reached = loss.item()
            if not math.isfinite(reached):
                raise BenchError(f"training {self.arch} on {data.name} diverged at step {step}: lower learning_rate")
            context.progress(step + 1, steps, f"loss {reached:.2f}")
        return {**to_cpu(model.state_dict()), _IDENTITIES: torch.tensor(data.identity_count)}

    def load(self, state: State) -> Victim:
        """The trained model, on the CPU, in eval mode."""
        weights = dict(state)
        model = self._build(int(weights.pop(_IDENTITIES)))
        model.load_state_dict(weights)
        return TorchreidModel(model, self.arch, self.input_size, self.distance)

    def _size_at(self, progress: float) -> tuple[int, int]:
        """Input size after a fraction of the steps."""
        height, width = self.input_size
        return (height // 2, width // 2) if progress < self.half_size else (height, width)

    def _build(self, identities: int) -> nn.Module:
        return untrained_model(self.arch, identities)

    def _forward(self, model: nn.Module, images: Tensor) -> tuple[Any, Any]:
        try:
            scores, features = model(images)
        except (RuntimeError, AssertionError) as error:
            height, width = images.shape[-2:]
            raise BenchError(f"{self.arch} does not run at input size {height}×{width}: {error}") from error
        return scores, features


def _mean(losses: Any) -> Tensor:
    return torch.stack(list(losses)).mean()
