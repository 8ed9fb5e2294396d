"""Generative Adversarial Perturbations (Poursaeed et al., CVPR 2018, arXiv 1712.02328), a baseline of Mis-Ranking.

A generator learns image-dependent noise that fools the source's classifier, without discriminator and ranking loss. The
generator is that of Mis-Ranking, so the two attacks differ in their objective only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import parametrize

from reid_attack_bench.contracts import (
    Batch,
    FitContext,
    LearnedAttack,
    Need,
    Reads,
    State,
    ThreatModel,
    TrainingData,
    Victim,
    paired,
    to_cpu,
)
from reid_attack_bench.errors import BenchError
from reid_attack_bench.validation import Count, Positive, check_settings

from .common.generator import Generator, check_image_size, initialised
from .common.objectives import logits_of

Objective = Literal["least_likely", "untargeted", "embedding"]

FLOOR = 1e-6  # least cross entropy under the logarithm, which keeps the loss of a fully fooled batch finite


def gap_loss(adversarial_logits: Tensor, clean_logits: Tensor, objective: Objective = "least_likely") -> Tensor:
    """Fooling loss, a scalar to minimise: log H of the least likely class, or −log H of the predicted class.

    H is the mean cross entropy of the batch. Both classes are those of the clean image according to the source: the
    attack uses no labels.

    Args:
        adversarial_logits, clean_logits: N×K.
    """
    if objective == "least_likely":
        sign, classes = 1.0, clean_logits.argmin(dim=1)
    else:
        sign, classes = -1.0, clean_logits.argmax(dim=1)
    return sign * functional.cross_entropy(adversarial_logits, classes).clamp_min(FLOOR).log()


def embedding_loss(adversarial: Tensor, clean: Tensor, source: Victim) -> Tensor:
    """Minus the mean distance between the embeddings N×D of images and of their clean versions, a scalar."""
    if source.own_comparison:
        return -paired(source, adversarial, clean).mean()
    return -source.compare(adversarial, clean).diagonal().mean()


@dataclass(frozen=True)
class GAP(LearnedAttack):
    """A generator trained to fool the source's classifier, then one forward pass per image.

    The paper scales the output of the generator to the budget by its largest value; here it is epsilon · tanh(·), as in
    `misranking`. A pixel budget keeps the positions that change most, in training too.

    Attributes:
        objective: "least_likely" or "untargeted", see `gap_loss`; "embedding" for a source without logits, see
            `embedding_loss`. A suite takes the latter by itself for such a source.
        width: channels of the generator's first convolution.
        steps: training batches of `batch` images, in random order, flipped horizontally with probability 0.5.
        learning_rate: learning rate of Adam with betas (0.5, 0.999).
        precision: precision of the generator in training; source, loss and crafting always use float32.
    """

    version: ClassVar[int] = 1
    citation: ClassVar[str] = "Poursaeed et al., CVPR 2018, arXiv 1712.02328"
    objective: Objective = "least_likely"
    width: Count = 32
    steps: Count = 4650
    batch: Annotated[int, Field(ge=2)] = 32
    learning_rate: Positive = 2e-4
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        check_settings(self, "gap")

    @property
    def needs(self) -> frozenset[Need]:
        """Gradients of the source, and its logits unless the objective is "embedding"."""
        return frozenset({"gradients"} if self.objective == "embedding" else {"gradients", "logits"})

    @property
    def reads(self) -> Reads:
        return "distances" if self.objective == "embedding" else "logits"

    def without_logits(self) -> GAP:
        return replace(self, objective="embedding")

    @property
    def fit_work(self) -> float:
        """Per image, about six forward passes for a generator of half width and three for the victim."""
        return (6.0 * (self.width / 16) ** 2 + 3.0) * self.steps * self.batch

    def draws_each_image(self, threat: ThreatModel) -> bool:
        return True

    def fit(self, source: Victim, data: TrainingData, threat: ThreatModel, context: FitContext) -> State:
        """Train the generator against `source` on its own training split, within `threat`.

        Returns:
            Weights and buffers of the generator, on the CPU.

        Raises:
            BenchError: the source has no logits, the images are too small or fewer than a batch, or the loss is not
                finite.
        """
        check_image_size("gap", data.images.shape[1:3])
        if len(data.images) < self.batch:
            raise BenchError(f"gap: {data.name} has {len(data.images)} training images, fewer than a batch of "
                             f"{self.batch}: lower batch")  # fmt: skip
        network = initialised(self._network, context.generator).to(context.device).train()
        optimiser = torch.optim.Adam(network.parameters(), self.learning_rate, (0.5, 0.999))
        batches = _batches(self.batch, data, context)
        # with epsilon 0 there is nothing to learn
        for step in range(1, self.steps + 1 if threat.epsilon else 1):
            clean = next(batches)
            with torch.no_grad():
                known = self._outputs(source, clean)
            with torch.autocast(context.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                noise = network(clean)
            adversarial = threat.project(clean + threat.radius * noise.float(), clean)
            loss = self._loss(self._outputs(source, adversarial), known, source)
            if not math.isfinite(loss.item()):
                raise BenchError(
                    f"gap: the loss is not finite at step {step} of {self.steps}: lower learning_rate "
                    f"({self.learning_rate:g})"
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward(inputs=list(network.parameters()))
            optimiser.step()
            context.progress(step, self.steps, f"loss {loss.item():.3g}")
        return to_cpu(network.state_dict())

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        """Adversarial images, N×3×H×W in [0, 1], within `threat` of `batch.images`; deterministic, each image alone.

        `source` and `generator` are not used.

        Raises:
            BenchError: no state, or one of another width.
        """
        if state is None:
            raise BenchError("gap has a generator to train first: call fit, and pass its result as state")
        clean = batch.images
        check_image_size("gap", clean.shape[-2:])
        network = initialised(self._network, torch.Generator())
        try:
            network.load_state_dict(dict(state))
        except RuntimeError as error:
            raise BenchError(f"gap: the stored generator is not of width {self.width}: fit again") from error
        network.to(clean.device).eval()
        # cached: the spectral norms are computed once, not for every image
        with torch.no_grad(), parametrize.cached():
            noise = torch.cat([*(network(image) for image in clean.split(1)), clean[:0]])
        return threat.project(clean + threat.radius * noise, clean)

    def _outputs(self, source: Victim, images: Tensor) -> Tensor:
        return source.embed(images) if self.objective == "embedding" else logits_of(source, images, classes=2)

    def _loss(self, adversarial: Tensor, clean: Tensor, source: Victim) -> Tensor:
        if self.objective == "embedding":
            return embedding_loss(adversarial, clean, source)
        return gap_loss(adversarial, clean, self.objective)

    def _network(self) -> Generator:
        return Generator(self.width)


def _batches(size: int, data: TrainingData, context: FitContext) -> Iterator[Tensor]:
    """Batches N×3×H×W in [0, 1] without end: random passes over the images, randomly flipped."""
    waiting = np.empty(0, np.int64)
    while True:
        if len(waiting) < size:
            waiting = np.concatenate([waiting, torch.randperm(len(data.images), generator=context.generator).numpy()])
        images, _ = data.batch(np.sort(waiting[:size]), context.device)
        waiting = waiting[size:]
        flipped = torch.rand(size, generator=context.generator).to(images.device) < 0.5
        # channels last: a fifth faster through the generator on a CPU
        yield torch.where(flipped.view(-1, 1, 1, 1), images.flip(-1), images).contiguous(
            memory_format=torch.channels_last
        )
