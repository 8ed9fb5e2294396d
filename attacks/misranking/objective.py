"""The weighted objective of generator and discriminator on one batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reid_attack_bench.contracts import Distance, ThreatModel, Victim

from ..common.objectives import require_logits
from . import losses, released
from .discriminators import score_maps
from .networks import Networks
from .settings import Settings


@dataclass(frozen=True)
class Losses:
    """Differentiable losses of one batch, and the largest change of a colour value, in [0, 1] units."""

    generator: Tensor
    discriminator: Tensor
    parts: dict[str, Tensor]
    largest_noise: float

    def note(self) -> str:
        parts = ", ".join(f"{name} {value.item():.3g}" for name, value in self.parts.items())
        return f"loss {self.generator.item():.3g} ({parts}), noise up to {255 * self.largest_noise:.1f}/255"


@dataclass(frozen=True)
class Objective:
    """Clean P×K batch → the losses of generator and discriminator.

    Attributes:
        noise_source: CPU generator of the Gumbel noise of the mask.
        data_name, classes: name of the training data and its number of identities, which are classes of the source only
            if it was trained on that data.
    """

    settings: Settings
    source: Victim
    networks: Networks
    threat: ThreatModel
    noise_source: torch.Generator
    data_name: str
    classes: int

    def __call__(self, clean: Tensor, identities: Tensor, pixels: int | None = None) -> Losses:
        """Losses of one batch; `pixels` is the size of its masks if it differs from the budget."""
        settings = self.settings
        adversarial = self.networks.adversarial(clean, self.threat, self.noise_source, pixels)
        parts = {name: weight * term for name, weight, term in self._reid_terms(clean, adversarial, identities)}
        if settings.perception != "none" and settings.perception_weight > 0:
            parts["perception"] = settings.perception_weight * self._perception(clean, adversarial)
        discriminator = clean.new_zeros(())
        if settings.gan_weight > 0:
            fake, real = self._scores(clean, adversarial)
            parts["gan"] = settings.gan_weight * losses.generator_gan_loss(fake)
            discriminator = losses.discriminator_gan_loss(real, fake)
        total = torch.stack(list(parts.values())).sum() if parts else adversarial.sum() * 0.0
        return Losses(total, discriminator, parts, (adversarial.detach() - clean).abs().max().item())

    def _does(self, behaviour: str) -> bool:
        return behaviour in self.settings.behaviours

    def _perception(self, clean: Tensor, adversarial: Tensor) -> Tensor:
        if self._does("normalised_ms_ssim"):
            return 1.0 - released.ms_ssim(clean, adversarial)
        return losses.perception_loss(clean, adversarial, self.settings.perception)

    def _scores(self, clean: Tensor, adversarial: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Score maps of the pairs (clean, adversarial), and of the real pairs of clean images."""
        networks = self.networks
        first, other = real_pairs(clean, self.settings)
        with _running_statistics_kept(networks.discriminator), networks.autocast(clean.device):
            fake = score_maps(networks.judged(clean, adversarial))
            real = score_maps(networks.judged(first, other))
        return (fake[-1:], real[-1:]) if self._does("quarter_scale") else (fake, real)

    def _reid_terms(
        self, clean: Tensor, adversarial: Tensor, identities: Tensor
    ) -> Iterator[tuple[str, float, Tensor]]:
        """(name, weight, loss) of each ReID loss with a positive weight."""
        settings, source = self.settings, self.source
        ranking = settings.reid_weight * settings.misranking_weight
        classification = settings.reid_weight * settings.misclassification_weight
        with torch.no_grad():
            references, clean_logits = _outputs(
                source, clean, ranking > 0 and settings.references == "clean", classification > 0
            )
        anchors, logits = _outputs(source, adversarial, ranking > 0, classification > 0)
        if anchors is not None:
            others = anchors if references is None else references
            yield "mis-ranking", ranking, self._misranking(anchors, others, identities)
        if classification > 0:
            advice = "set misclassification_weight to 0 to train without them"
            known, moved = (require_logits(each, source, 2, advice) for each in (clean_logits, logits))
            # labels are classes of the source only if it was trained on this data; otherwise use its predictions
            own = source.trained_on == self.data_name or (not source.trained_on and known.shape[1] == self.classes)
            true = identities if own else known.argmax(dim=1)
            yield "misclassification", classification, self._misclassification(known, moved, true)

    def _misranking(self, anchors: Tensor, references: Tensor, identities: Tensor) -> Tensor:
        settings = self.settings
        space: Distance = self.source.distance if settings.distance == "victim" else settings.distance
        if self._does("raw_embeddings"):
            space = "euclidean"
        if self.source.own_comparison and settings.distance == "victim":
            same = identities.unsqueeze(1) == identities.unsqueeze(0)
            matrix = self.source.compare(anchors, references)
            return losses.inverted_triplet(matrix, same, losses.without_self(same), settings.margin)
        if not (self._does("self_pair") or self._does("log_losses")):
            return losses.misranking_loss(anchors, references, identities, settings.margin, space)
        return released.misranking_loss(
            anchors,
            references,
            identities,
            settings.margin,
            space,
            self_pair=self._does("self_pair"),
            log_losses=self._does("log_losses"),
        )

    def _misclassification(self, clean_logits: Tensor, adversarial_logits: Tensor, true: Tensor) -> Tensor:
        smoothing = self.settings.label_smoothing
        if self._does("moving_target") or self._does("batch_smoothing"):
            target = released.misclassification_target(
                clean_logits,
                adversarial_logits,
                true,
                smoothing,
                moving_target=self._does("moving_target"),
                batch_smoothing=self._does("batch_smoothing"),
            )
        else:
            target = losses.misclassification_target(clean_logits, true, smoothing)
        loss = losses.misclassification_loss(adversarial_logits, target)
        return loss.log() if self._does("log_losses") else loss


def real_pairs(clean: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """First and second images of the real pairs, from a P×K batch in groups of K images of one identity.

    Two different people: the first half of the batch with the second, N // 2 pairs. The same person: each of the N
    images with the one before it in its group.
    """
    if settings.real_pairs == "same":
        return clean, clean.unflatten(0, (-1, settings.batch_instances)).roll(1, dims=1).flatten(0, 1)
    half = len(clean) // 2  # at least K positions apart, so never the same identity
    return clean[:half], clean[half : 2 * half]


def _outputs(source: Victim, images: Tensor, embeddings: bool, logits: bool) -> tuple[Tensor | None, Tensor | None]:
    """The requested outputs, from one forward pass if both are requested."""
    if embeddings and logits:
        return source.outputs(images)
    return source.embed(images) if embeddings else None, source.logits(images) if logits else None


class _running_statistics_kept:  # noqa: N801, a context manager reads like a function
    """Normalise with batch statistics without updating the running ones.

    Crafting uses the discriminator only for the mask: its running statistics must be those of the mask's pass, without
    the real and fake pairs of the GAN loss.
    """

    def __init__(self, network: nn.Module) -> None:
        self._layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]

    def __enter__(self) -> None:
        self._momenta = [layer.momentum for layer in self._layers]
        for layer in self._layers:
            layer.momentum = 0.0

    def __exit__(self, *exception: object) -> None:
        for layer, momentum in zip(self._layers, self._momenta, strict=True):
            layer.momentum = momentum
