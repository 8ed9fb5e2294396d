"""Deep Mis-Ranking (Wang et al., CVPR 2020, arXiv 2004.04199): a generator learns noise that inverts a ReID ranking.

L = w_gan · L_GAN + w_reid · (w_xent · L_misclassification + ζ · L_misranking) + η · (1 − L_VP)

follows the meaning of the paper. The released code differs in ways that change results; `released` lists them,
and `variant: released` does what it does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from reid_attack_bench.contracts import (
    Batch,
    FitContext,
    LearnedAttack,
    Reads,
    State,
    ThreatModel,
    TrainingData,
    Victim,
)
from reid_attack_bench.errors import BenchError

from ..common.generator import Normalisation, check_image_size
from .networks import fresh_networks, restored_networks
from .settings import Settings
from .training import Training


@dataclass(frozen=True)
class MisRanking(Settings, LearnedAttack):
    """A generator trained on the source's training split; crafting is one forward pass per image.

    `fit` needs logits unless `misclassification_weight` is 0; `craft` uses neither the source nor labels. The settings
    are those of `settings.Settings`.
    """

    citation: ClassVar[str] = "Wang et al., CVPR 2020, arXiv 2004.04199"
    version: ClassVar[int] = 3

    @property
    def reads(self) -> Reads:
        """Distances alone where the mis-ranking loss is that of the paper, in the distance of the source."""
        if self.misranking_weight == 0:
            return "logits"
        own_loss = {"raw_embeddings", "self_pair", "log_losses"} & set(self.behaviours)
        return "embeddings" if own_loss or self.distance != "victim" else "distances"

    def without_logits(self) -> MisRanking | None:
        """The same with `misclassification_weight` 0; None if no mis-ranking loss is left."""
        return replace(self, misclassification_weight=0.0) if self.misranking_weight else None

    def draws_each_image(self, threat: ThreatModel) -> bool:
        return True

    def fit(self, source: Victim, data: TrainingData, threat: ThreatModel, context: FitContext) -> State:
        """Train the generator against `source` on its training split, within `threat`.

        Each batch gives one generator step and one discriminator step. The mask head is trained with the generator's
        objective, if there is a pixel budget. With a `context.checkpoint` an interrupted fit resumes, with bitwise the
        same result.

        Returns:
            Weights and buffers under "generator."; with a pixel budget also under "discriminator." and "mask_head.",
            because the mask head reads the discriminator's feature maps. "history.losses" and "history.held_out" are
            float64 tables with the columns `training.LOSS_COLUMNS` and `training.VALIDATION_COLUMNS`. All on the CPU.

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

        Deterministic and independent of the rest of the batch: no Gumbel noise, one image per forward pass. `source` is
        not used, and `generator` only by the behaviour "gumbel_at_test" of the released code.

        Raises:
            BenchError: `state` is missing, has other settings, or was fitted without a pixel budget.
        """
        if state is None:
            raise BenchError("misranking has a generator to train first: call fit, and pass its result as state")
        clean = batch.images
        check_image_size("misranking", clean.shape[-2:])
        networks = restored_networks(self, threat, state, clean.device)
        # cached: spectral norms are computed once for all images
        with torch.no_grad(), parametrize.cached():
            noise_source = generator if "gumbel_at_test" in self.behaviours else None
            adversarial = [networks.adversarial(image, threat, noise_source) for image in clean.split(1)]
        return torch.cat([*adversarial, clean[:0]]).mul(255.0).round().div(255.0)


def _check_images(data: TrainingData, normalisation: Normalisation) -> None:
    height, width = data.images.shape[1:3]
    check_image_size("misranking", (height, width))
    # the maps of the quarter-scale discriminator are 1/32 of the image; a single value has no variance
    if normalisation == "instance" and max(height, width) <= 32:
        raise BenchError(
            f"misranking: instance normalisation needs a side above 32 pixels; images of {data.name} are "
            f"{height}×{width}: use normalisation batch"
        )
