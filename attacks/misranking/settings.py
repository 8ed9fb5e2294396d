"""Settings of Deep Mis-Ranking and their checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from reid_attack_bench.contracts import ADDED_LATER, Need
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.validation import Count, NonNegative, Positive, Share, check_settings

from ..common.generator import Normalisation, Upsampling
from . import losses
from .discriminators import Discrimination
from .released import BEHAVIOURS, RENAMED

Momentum = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Settings:
    """Settings of `MisRanking`; the defaults are the paper's.

    Attributes:
        width: channels of the generator's first convolution.
        discriminator: "multi-stage" (three scales) or "patchgan" (one scale), which the paper compares. A pixel budget
            requires "multi-stage", whose feature maps give the mask.
        discriminator_width: channels of each discriminator's first convolution.
        normalisation: "batch" or "instance", in all networks.
        upsampling: "transposed" convolutions as released, or "resize", which leaves no checkerboard artefacts.
        residual_blocks: residual blocks of the generator.
        steps: training batches. The default is that of the paper: 50 epochs of 93 batches on Market-1501, where an
            epoch visits every identity once.
        batch_identities, batch_instances: P identities and K images of each per batch; both at least 2, because the
            mis-ranking loss compares images of different identities and different images of one identity.
        learning_rate, betas: parameters of both Adam optimisers.
        precision: precision of generator and discriminator in training. "bfloat16" (automatic mixed precision) is
            nearly twice as fast on GPUs and on CPUs with AVX512-BF16, and slower on other CPUs. Victim, losses and
            crafting always use float32.
        decay: final share of the steps over which both learning rates fall linearly to 0; the paper has none.
        margin: Δ of the mis-ranking loss, in squared distance.
        distance: distance of the mis-ranking loss: "victim" for that of the source, or "cosine" or "euclidean".
        references: images that adversarial anchors are compared with: "adversarial" (the paper) or "clean", which is
            closer to an evaluation where one side is attacked.
        gan_weight: weight of the GAN loss; 0 trains without a discriminator.
        real_pairs: what the discriminator learns as real: two clean images of "different" people (the paper), or of the
            "same" person.
        reid_weight: common weight of the two ReID losses (the released code uses 2 for PCB).
        misranking_weight: ζ, weight of the mis-ranking loss.
        misclassification_weight: weight of the misclassification loss; 0 for a source without logits.
        label_smoothing: δ of the misclassification target.
        perception, perception_weight: similarity measure of the perception loss, and its weight η.
        pixel_schedule: with a budget of k pixels, "direct" (the paper) trains with k from the start; "annealed"
            decreases from all pixels to k geometrically over the first half of the steps. Crafting always uses k.
        held_out: share of the training identities, at least 4, used for validation instead of training. The white-box
            attack on their images is evaluated regularly, and the weights with the lowest mAP are returned. 0 trains on
            all identities and returns the last weights. (The released code selects weights on the test set.)
        check_every: steps between validations.
        patience: validations without a lower mAP after which training stops; 0 for no early stopping.
        variant: "paper", or "released" for all behaviours of the authors' code that change results.
        released: single behaviours of the authors' code, keys of `released.BEHAVIOURS`.
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
    real_pairs: Literal["different", "same"] = field(default="different", metadata=ADDED_LATER)
    reid_weight: NonNegative = 10.0
    misranking_weight: NonNegative = 1.0
    misclassification_weight: NonNegative = 1.0
    label_smoothing: Share = 0.1
    perception: losses.Perception = "ms-ssim"
    perception_weight: NonNegative = 0.1
    pixel_schedule: Literal["direct", "annealed"] = "direct"
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
            raise BenchError("misranking: patience requires validation identities: set held_out, for example to 0.1")
        self._check_released()

    def _check_released(self) -> None:
        """Raise BenchError for behaviours that require or exclude another behaviour or setting."""
        if self.variant == "released" and self.released:
            raise BenchError(
                "misranking: variant released already includes every behaviour of the released code: leave out "
                "`released`, or use variant paper with single behaviours"
            )
        on = self.behaviours
        ranking = self.reid_weight * self.misranking_weight > 0
        for clash, reason in (
            (
                ranking and "log_losses" in on and "self_pair" not in on,
                "log_losses requires self_pair: without it the logarithm diverges to minus infinity",
            ),
            (
                "self_pair" in on and self.references == "clean",
                "self_pair requires references adversarial: only then an image is at distance 0 from itself",
            ),
            (
                "raw_embeddings" in on and self.distance == "cosine",
                "raw_embeddings contradicts distance cosine: leave out one of them",
            ),
            (
                "normalised_ms_ssim" in on and self.perception == "ssim",
                "normalised_ms_ssim requires perception ms-ssim (or none), not ssim",
            ),
            (
                "quarter_scale" in on and self.discriminator == "patchgan",
                "quarter_scale requires discriminator multi-stage: patchgan has a single scale",
            ),
            (
                self.variant == "released" and self.real_pairs == "same",
                "variant released requires real_pairs different, the pairs of the paper and of the released code",
            ),
            (
                self.variant == "released" and self.pixel_schedule == "annealed",
                "variant released requires pixel_schedule direct: the released code does not anneal",
            ),
        ):
            if clash:
                raise BenchError(f"misranking: {reason}")

    @property
    def behaviours(self) -> frozenset[str]:
        """Behaviours of the released code that are switched on."""
        return frozenset(BEHAVIOURS if self.variant == "released" else self.released)

    @property
    def needs(self) -> frozenset[Need]:
        """Gradients of the source, and its logits unless `misclassification_weight` is 0."""
        return frozenset({"gradients", "logits"} if self.misclassification_weight > 0 else {"gradients"})

    @property
    def fit_work(self) -> float:
        """Per image, about twelve forward passes for networks of half width."""
        return 12.0 * (self.width / 16) ** 2 * self.steps * self.batch_identities * self.batch_instances


def _in_order(names: Sequence[str]) -> tuple[str, ...]:
    """Behaviours without repetition, in the order of `BEHAVIOURS`, so that equal sets are equal settings."""
    for name in names:
        if name in RENAMED:
            raise BenchError(f"misranking: '{name}' is no longer a behaviour of `released`: {RENAMED[name]}")
        if name not in BEHAVIOURS:
            raise BenchError(f"misranking: the released code has no behaviour '{name}': {nearest(name, BEHAVIOURS)}")
    return tuple(name for name in BEHAVIOURS if name in names)
