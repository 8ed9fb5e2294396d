"""Settings of Deep Mis-Ranking and the rules that they must obey together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from reid_attack_bench.contracts import Need
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.validation import Count, NonNegative, Positive, Share, check_settings

from ..common.generator import Normalisation, Upsampling
from . import losses
from .discriminators import Discrimination
from .released import BEHAVIOURS

Momentum = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Settings:
    """Settings of `MisRanking`; the defaults are the paper's.

    Attributes:
        width: channels of the generator's first convolution.
        discriminator: "multi-stage", three scales, or "patchgan", one: the paper's comparison. A pixel budget needs
            the three, because the mask is made of their maps.
        discriminator_width: channels of each discriminator's first convolution.
        normalisation: "batch" or "instance", in all networks.
        upsampling: "transposed" convolutions as released, or "resize", which leaves no grid in the noise.
        residual_blocks: of the generator.
        steps: training batches. The default is the paper's scale: 50 epochs of 93 batches, an epoch being
            every Market-1501 identity once.
        batch_identities, batch_instances: P identities × K images a batch; both at least 2, because the
            mis-ranking loss compares with another identity and with another image of the same one.
        learning_rate, betas: of both Adam optimisers.
        precision: of generator and discriminator while they train; "bfloat16" (automatic mixed precision, without the
            loss scaling that float16 would need) is nearly twice as fast on GPUs and on CPUs with AVX512-BF16, and
            slower on others. The victim, the losses and crafting are float32 always.
        decay: share of the steps, at the end, over which both learning rates fall linearly to 0; none in the paper.
        margin: Δ of the mis-ranking loss, in squared distance.
        distance: space of the mis-ranking loss: "victim" where the source ranks (unit length for a
            cosine victim, else as they are), or "cosine" or "euclidean" whatever the source.
        references: what adversarial anchors are compared with: "adversarial" images (the paper) or
            "clean" ones, closer to the evaluation, where only one side is attacked.
        gan_weight: of the GAN loss; 0 trains without a discriminator.
        reid_weight: common factor of the two ReID losses (the released code takes 2 for PCB).
        misranking_weight: ζ.
        misclassification_weight: 0 for a source without logits.
        label_smoothing: δ of the misclassification target.
        perception, perception_weight: the similarity that keeps images alike, and η.
        pixel_schedule: with a pixel budget of k, "direct" trains with k from the start, "annealed" comes down to it
            from all pixels, geometrically, over the first half of the steps, which left less of Rank-1
            with every seed (results/paper-pixels). Crafting keeps k in both.
        held_out: share of the training identities, at least 4, that training leaves out and the attack is measured
            on, white-box: Rank-1 and mAP of their adversarial images against their clean ones. The weights with the
            lowest mAP are returned. 0 trains with all identities and returns the last weights. (The released code
            chooses by the test set, which nothing here does.)
        check_every: steps from one measurement to the next.
        patience: measurements without a lower mAP after which training stops; 0 never.
        variant: "paper", or "released" for every behaviour of the authors' code that changes results.
        released: single behaviours of that code, by the names in `released.BEHAVIOURS`.
    """

    width: Count = 32
    discriminator: Discrimination = "multi-stage"
    discriminator_width: Count = 64
    normalisation: Normalisation = "batch"
    upsampling: Upsampling = "transposed"
    residual_blocks: Annotated[int, Field(ge=0)] = 6
    steps: Count = 4650
    batch_identities: Annotated[int, Field(ge=2)] = 8
    batch_instances: Annotated[int, Field(ge=2)] = 4
    learning_rate: Positive = 2e-4
    betas: tuple[Momentum, Momentum] = (0.5, 0.999)
    precision: Literal["float32", "bfloat16"] = "float32"
    decay: Share = 0.0
    margin: NonNegative = 0.3
    distance: Literal["victim", "cosine", "euclidean"] = "victim"
    references: Literal["adversarial", "clean"] = "adversarial"
    gan_weight: NonNegative = 1.0
    reid_weight: NonNegative = 10.0
    misranking_weight: NonNegative = 1.0
    misclassification_weight: NonNegative = 1.0
    label_smoothing: Share = 0.1
    perception: losses.Perception = "ms-ssim"
    perception_weight: NonNegative = 0.1
    pixel_schedule: Literal["direct", "annealed"] = "annealed"
    held_out: Share = 0.1
    check_every: Count = 25
    patience: Annotated[int, Field(ge=0)] = 0
    variant: Literal["paper", "released"] = "paper"
    released: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises BenchError, naming the setting and what it may be."""
        check_settings(self, "misranking")
        object.__setattr__(self, "released", _in_order(self.released))
        if self.patience and not self.held_out:
            raise BenchError("misranking: patience needs measurements to wait for: set held_out, to 0.1 for instance")
        self._check_released()

    def _check_released(self) -> None:
        """Behaviours that cannot be had with each other's absence, or with another setting."""
        if self.variant == "released" and self.released:
            raise BenchError(
                "misranking: variant released has every behaviour of the released code already: leave out `released`, "
                "or use variant paper with those you want"
            )
        on = self.behaviours
        ranking = self.reid_weight * self.misranking_weight > 0
        for clash, reason in (
            (
                ranking and "log_losses" in on and "self_pair" not in on,
                "log_losses needs self_pair: without it the logarithm runs to minus infinity",
            ),
            (
                "self_pair" in on and self.references == "clean",
                "self_pair needs references adversarial: an image is at distance 0 from itself only among those",
            ),
            (
                "raw_embeddings" in on and self.distance == "cosine",
                "raw_embeddings contradicts distance cosine: leave out one of them",
            ),
            (
                "normalised_ms_ssim" in on and self.perception == "ssim",
                "normalised_ms_ssim needs perception ms-ssim (or none), not ssim",
            ),
            (
                "quarter_scale" in on and self.discriminator == "patchgan",
                "quarter_scale needs discriminator multi-stage: patchgan has one scale, and the released one crashes",
            ),
        ):
            if clash:
                raise BenchError(f"misranking: {reason}")

    @property
    def behaviours(self) -> frozenset[str]:
        """What this attack does as the released code does it."""
        return frozenset(BEHAVIOURS if self.variant == "released" else self.released)

    @property
    def needs(self) -> frozenset[Need]:
        """Gradients of the source, and its logits while the misclassification loss has weight."""
        return frozenset({"gradients", "logits"} if self.misclassification_weight > 0 else {"gradients"})

    @property
    def fit_work(self) -> float:
        """Generator and discriminator cost some twelve passes of a small victim an image at half width."""
        return 12.0 * (self.width / 16) ** 2 * self.steps * self.batch_identities * self.batch_instances


def _in_order(names: Sequence[str]) -> tuple[str, ...]:
    """Behaviours once each and in their own order, so that the same set is the same attack."""
    for name in names:
        if name not in BEHAVIOURS:
            raise BenchError(f"misranking: the released code has no behaviour '{name}': {nearest(name, BEHAVIOURS)}")
    return tuple(name for name in BEHAVIOURS if name in names)
