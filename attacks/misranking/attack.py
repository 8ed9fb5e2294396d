"""Deep Mis-Ranking (Wang et al., CVPR 2020, arXiv 2004.04199): a generator learns noise that inverts a ReID ranking.

L = w_gan · L_GAN + w_reid · (w_xent · L_misclassification + ζ · L_misranking) + η · (1 − L_VP)

follows the meaning of the paper. The released code differs in ways that change results; `released` lists them,
and `variant: released` does what it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from reid_attack_bench.contracts import Batch, FitContext, LearnedAttack, State, ThreatModel, TrainingData, Victim
from reid_attack_bench.errors import BenchError

from ..common.generator import Normalisation, check_image_size
from .networks import fresh_networks, restored_networks
from .settings import Settings
from .training import Training


@dataclass(frozen=True)
class MisRanking(Settings, LearnedAttack):
    """A generator trained on the source's own training split, then one forward pass per image.

    `fit` needs logits only while `misclassification_weight` > 0; `craft` uses neither the source nor any label.
    Settings: see `settings.Settings`.
    """

    citation: ClassVar[str] = "Wang et al., CVPR 2020, arXiv 2004.04199"
    version: ClassVar[int] = 2

    def fit(self, source: Victim, data: TrainingData, threat: ThreatModel, context: FitContext) -> State:
        """Train the generator against `source` on its own training split, within `threat`.

        One generator step, then one discriminator step per batch. The mask head takes part only with a
        pixel budget, and learns the generator's objective. Where `context` has a `checkpoint`
        an interrupted fit goes on, with the same result to the bit.

        Returns:
            Weights and buffers under "generator.", and with a pixel budget under "discriminator." and
            "mask_head." too (the mask head reads the discriminator's maps). Beside them "history.losses" and
            "history.held_out", float64, whose columns are `training.LOSS_COLUMNS` and
            `training.HELD_OUT_COLUMNS`. All on the CPU.

        Raises:
            BenchError: the source has no logits or too few classes, too few identities, images too small,
                or the training diverges.
        """
        _check_images(data, self.normalisation)
        networks = fresh_networks(self, threat, context.generator, context.device)
        return Training(self, networks, source, data, threat, context).run()

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        """Adversarial images, N×3×H×W on the 256 levels of 8 bits, within `threat` of `batch.images`.

        Deterministic: no Gumbel noise, and each image passes alone, so that the result does not depend on
        the images beside it. `source` is not used, and `generator` only by the released code's "gumbel_at_test".

        Raises:
            BenchError: no state, one of other settings, or one fitted without the pixel budget asked for.
        """
        if state is None:
            raise BenchError("misranking learns its generator first: call fit, and pass what it returns as state")
        clean = batch.images
        check_image_size("misranking", clean.shape[-2:])
        networks = restored_networks(self, threat, state, clean.device)
        # cached: the spectral norms are computed once, not for every image
        with torch.no_grad(), parametrize.cached():
            noise_source = generator if "gumbel_at_test" in self.behaviours else None
            adversarial = [networks.adversarial(image, threat, noise_source) for image in clean.split(1)]
        return torch.cat([*adversarial, clean[:0]]).mul(255.0).round().div(255.0)


def _check_images(data: TrainingData, normalisation: Normalisation) -> None:
    height, width = data.images.shape[1:3]
    check_image_size("misranking", (height, width))
    # the quarter-scale discriminator ends at 1/32, and one value has no variance of its own
    if normalisation == "instance" and max(height, width) <= 32:
        raise BenchError(
            f"misranking: instance normalisation needs a side above 32 pixels; images of {data.name} are "
            f"{height}×{width}: use normalisation batch"
        )
