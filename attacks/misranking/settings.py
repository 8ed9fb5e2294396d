"""Settings of Deep Mis-Ranking and the rules that they must obey together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reid_attack_bench.contracts import Need
from reid_attack_bench.errors import BenchError, nearest

from ..common.generator import Normalisation, Upsampling
from . import losses
from .discriminators import Discrimination
from .released import BEHAVIOURS


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

    width: int = 32
    discriminator: Discrimination = "multi-stage"
    discriminator_width: int = 64
    normalisation: Normalisation = "batch"
    upsampling: Upsampling = "transposed"
    residual_blocks: int = 6
    steps: int = 4650
    batch_identities: int = 8
    batch_instances: int = 4
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    precision: Literal["float32", "bfloat16"] = "float32"
    decay: float = 0.0
    margin: float = 0.3
    distance: Literal["victim", "cosine", "euclidean"] = "victim"
    references: Literal["adversarial", "clean"] = "adversarial"
    gan_weight: float = 1.0
    reid_weight: float = 10.0
    misranking_weight: float = 1.0
    misclassification_weight: float = 1.0
    label_smoothing: float = 0.1
    perception: losses.Perception = "ms-ssim"
    perception_weight: float = 0.1
    pixel_schedule: Literal["direct", "annealed"] = "annealed"
    held_out: float = 0.1
    check_every: int = 25
    patience: int = 0
    variant: Literal["paper", "released"] = "paper"
    released: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises BenchError, naming the setting and what it may be."""
        object.__setattr__(self, "betas", tuple(self.betas))
        object.__setattr__(self, "released", _in_order(self.released))
        choices: dict[str, tuple[str, ...]] = {
            "normalisation": ("batch", "instance"),
            "upsampling": ("transposed", "resize"),
            "distance": ("victim", "cosine", "euclidean"),
            "references": ("adversarial", "clean"),
            "precision": ("float32", "bfloat16"),
            "perception": ("ms-ssim", "ssim", "none"),
            "pixel_schedule": ("direct", "annealed"),
            "variant": ("paper", "released"),
            "discriminator": ("multi-stage", "patchgan"),
        }
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                raise BenchError(
                    f"misranking: {field} must be one of {', '.join(allowed)}, not {getattr(self, field)!r}"
                )
        for field, least in (
            ("width", 1),
            ("discriminator_width", 1),
            ("residual_blocks", 0),
            ("steps", 1),
            ("batch_identities", 2),
            ("batch_instances", 2),
            ("check_every", 1),
            ("patience", 0),
        ):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise BenchError(f"misranking: {field} must be a whole number of at least {least}, not {value!r}")
        for field in (
            "margin",
            "gan_weight",
            "reid_weight",
            "misranking_weight",
            "misclassification_weight",
            "perception_weight",
        ):
            if not 0 <= getattr(self, field) < math.inf:
                raise BenchError(f"misranking: {field} must be a number of at least 0, not {getattr(self, field)!r}")
        if not 0 < self.learning_rate < math.inf:
            raise BenchError(f"misranking: learning_rate must be positive, not {self.learning_rate!r}")
        for field in ("label_smoothing", "decay", "held_out"):
            if not 0 <= getattr(self, field) <= 1:
                raise BenchError(f"misranking: {field} must be from 0 to 1, not {getattr(self, field)!r}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise BenchError(f"misranking: betas must be two numbers from 0 to below 1, not {self.betas!r}")
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
    if isinstance(names, str):
        raise BenchError(f"misranking: released must be a list of names, not {names!r}")
    for name in names:
        if name not in BEHAVIOURS:
            raise BenchError(f"misranking: the released code has no behaviour '{name}': {nearest(name, BEHAVIOURS)}")
    return tuple(name for name in BEHAVIOURS if name in names)
