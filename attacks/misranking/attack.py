"""Deep Mis-Ranking (Wang et al., CVPR 2020, arXiv 2004.04199): a generator learns noise that inverts a ReID ranking.

L = w_gan · L_GAN + w_reid · (w_xent · L_misclassification + ζ · L_misranking) + η · (1 − L_VP)

follows the meaning of the paper. The released code differs in ways that change results (see `losses`);
what only it does is not reproduced here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from reid_attack_bench.contracts import Batch, Distance, FitContext, Need, State, ThreatModel, TrainingData, Victim
from reid_attack_bench.data.sampling import pk_batches
from reid_attack_bench.errors import BenchError

from . import losses
from .mask import MaskHead, gumbel, straight_through_top_k, top_k
from .networks import (
    Discriminator,
    Generator,
    Normalisation,
    Upsampling,
    score_maps,
)

SMALLEST_SIDE = 16  # reflection padding after the generator's two halvings needs it
PATIENCE = 20  # training steps in a row without any visible noise before the fit gives up


@dataclass(frozen=True)
class MisRanking:
    """A generator trained on the source's own training split, then one forward pass per image.

    The defaults are the paper's. `fit` needs logits only while `misclassification_weight` > 0; `craft`
    asks neither the source nor any label.

    Attributes:
        width: channels of the generator's first convolution.
        discriminator_width: channels of each discriminator's first convolution.
        normalisation: "batch" or "instance", in all networks.
        upsampling: "transposed" convolutions as released, or "resize", which leaves no grid in the noise.
        residual_blocks: of the generator.
        steps: training batches. The default is the paper's scale: 50 epochs of 93 batches, an epoch being
            every Market-1501 identity once.
        batch_identities, batch_instances: P identities × K images a batch; both at least 2, because the
            mis-ranking loss compares with another identity and with another image of the same one.
        learning_rate, betas: of both Adam optimisers.
        precision: of generator and discriminator while they train; "bfloat16" is nearly twice as fast on GPUs and on
            CPUs with AVX512-BF16, and slower on others. The victim, the losses and crafting are float32 always.
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
    """

    width: int = 32
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

    citation: ClassVar[str] = "Wang et al., CVPR 2020, arXiv 2004.04199"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Raises BenchError, naming the setting and what it may be."""
        object.__setattr__(self, "betas", tuple(self.betas))
        choices: dict[str, tuple[str, ...]] = {
            "normalisation": ("batch", "instance"),
            "upsampling": ("transposed", "resize"),
            "distance": ("victim", "cosine", "euclidean"),
            "references": ("adversarial", "clean"),
            "precision": ("float32", "bfloat16"),
            "perception": ("ms-ssim", "ssim", "none"),
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
        for field in ("label_smoothing", "decay"):
            if not 0 <= getattr(self, field) <= 1:
                raise BenchError(f"misranking: {field} must be from 0 to 1, not {getattr(self, field)!r}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise BenchError(f"misranking: betas must be two numbers from 0 to below 1, not {self.betas!r}")

    @property
    def needs(self) -> frozenset[Need]:
        """Gradients of the source, and its logits while the misclassification loss has weight."""
        return frozenset({"gradients", "logits"} if self.misclassification_weight > 0 else {"gradients"})

    @property
    def fit_work(self) -> float:
        """Generator and discriminator cost some twelve passes of a small victim an image at half width."""
        return 12.0 * (self.width / 16) ** 2 * self.steps * self.batch_identities * self.batch_instances

    def fit(self, source: Victim, data: TrainingData, threat: ThreatModel, context: FitContext) -> State:
        """Train the generator against `source` on its own training split, within `threat`.

        One generator step, then one discriminator step per batch. The mask head takes part only with a
        pixel budget, and learns the generator's objective.

        Returns:
            Weights and buffers under "generator.", and with a pixel budget under "discriminator." and
            "mask_head." too (the mask head reads the discriminator's maps); on the CPU.

        Raises:
            BenchError: the source has no logits or too few classes, too few identities, images too small,
                or the training diverges.
        """
        _check_images(data, self.normalisation)
        device = context.device
        networks = self._networks(threat, context.generator, device).train()
        objective = _Objective(self, source, networks, threat, context.generator, data.name, data.identity_count)
        trains_discriminator = self.gan_weight > 0
        betas = (self.betas[0], self.betas[1])
        generator_weights = networks.generator_weights
        generator_optimiser = torch.optim.Adam(generator_weights, self.learning_rate, betas)
        discriminator_weights = list(networks.discriminator.parameters())
        discriminator_optimiser = torch.optim.Adam(discriminator_weights, self.learning_rate, betas)

        # nothing can be learnt within an empty budget, and the untrained networks respect it
        steps = self.steps if threat.epsilon else 0
        decays = [
            torch.optim.lr_scheduler.LambdaLR(optimiser, _decay(self.decay, steps))
            for optimiser in (generator_optimiser, discriminator_optimiser)[: 2 if trains_discriminator else 1]
        ]
        batches = _training_batches(self, data, context)
        invisible = 0
        for step in range(1, steps + 1):
            clean, identities = next(batches)
            losses_now = objective(clean, identities)
            if not (math.isfinite(losses_now.generator.item()) and math.isfinite(losses_now.discriminator.item())):
                raise BenchError(
                    f"misranking: the loss is not finite at step {step} of {steps} ({losses_now.note()}): "
                    f"lower learning_rate ({self.learning_rate:g}) or reid_weight ({self.reid_weight:g})"
                )
            # The pairs (clean, adversarial) go through the discriminator once. Each backward pass stops at
            # the weights it is for, so neither loss touches the other network, nor the victim.
            generator_optimiser.zero_grad(set_to_none=True)
            losses_now.generator.backward(inputs=generator_weights, retain_graph=trains_discriminator)
            if trains_discriminator:
                discriminator_optimiser.zero_grad(set_to_none=True)
                losses_now.discriminator.backward(inputs=discriminator_weights)
                discriminator_optimiser.step()
            generator_optimiser.step()
            for decay in decays:
                decay.step()

            # less than half an 8-bit step everywhere is rounded away
            invisible = invisible + 1 if losses_now.largest_noise < 0.5 / 255 else 0
            if invisible >= PATIENCE:
                raise BenchError(
                    f"misranking: the noise has vanished ({PATIENCE} batches without a visible change, step {step} "
                    f"of {steps}): raise reid_weight ({self.reid_weight:g}) or lower perception_weight "
                    f"({self.perception_weight:g}) and gan_weight ({self.gan_weight:g})"
                )
            context.progress(step, steps, losses_now.note())
            del losses_now  # its graph, before the next one is built
        return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in networks.kept.state_dict().items()}

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        """Adversarial images, N×3×H×W on the 256 levels of 8 bits, within `threat` of `batch.images`.

        Deterministic: no Gumbel noise, and each image passes alone, so that the result does not depend on
        the images beside it. `source` and `generator` are not used.

        Raises:
            BenchError: no state, one of other settings, or one fitted without the pixel budget asked for.
        """
        if state is None:
            raise BenchError("misranking learns its generator first: call fit, and pass what it returns as state")
        clean = batch.images
        if min(clean.shape[-2:]) < SMALLEST_SIDE:
            raise BenchError(
                f"misranking needs images of at least {SMALLEST_SIDE}×{SMALLEST_SIDE} pixels, not "
                f"{clean.shape[-2]}×{clean.shape[-1]}"
            )
        networks = self._restore(threat, state, clean.device)
        # cached: the spectral norms are computed once, not for every image
        with torch.no_grad(), parametrize.cached():
            adversarial = [networks.adversarial(image, threat) for image in clean.split(1)]
        return torch.cat([*adversarial, clean[:0]]).mul(255.0).round().div(255.0)

    def _networks(self, threat: ThreatModel, generator: torch.Generator, device: torch.device) -> _Networks:
        """Fresh networks, initialised from `generator` alone."""
        seed = int(torch.randint(2**62, (1,), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            return _Networks(self, masked=threat.pixels is not None).to(device)

    def _restore(self, threat: ThreatModel, state: State, device: torch.device) -> _Networks:
        """The networks that `state` holds, in eval mode."""
        masked = threat.pixels is not None
        if masked and not any(name.startswith("mask_head.") for name in state):
            raise BenchError(
                f"misranking was fitted without a pixel budget and has no mask for {threat.pixels} pixels: "
                "fit it with this threat model"
            )
        with torch.random.fork_rng(devices=[]):  # the initialisation that is overwritten draws numbers
            networks = _Networks(self, masked)
        kept = networks.kept
        wanted = kept.state_dict().keys()
        try:
            kept.load_state_dict({name: tensor for name, tensor in state.items() if name in wanted})
        except RuntimeError as error:
            raise BenchError(
                f"misranking: the state does not belong to these settings ({_second_line(error)}): fit again"
            ) from error
        return networks.to(device).eval()


class _Networks(nn.Module):
    """Generator, discriminator and, with a pixel budget, the mask head over the discriminator's maps."""

    def __init__(self, settings: MisRanking, masked: bool) -> None:
        super().__init__()
        self.half_precision = settings.precision == "bfloat16"
        self.generator = Generator(
            settings.width, settings.residual_blocks, settings.normalisation, settings.upsampling
        )
        self.discriminator = Discriminator(settings.discriminator_width, settings.normalisation)
        self.mask_head = MaskHead(settings.discriminator_width, settings.normalisation) if masked else None

    def reduced(self, device: torch.device) -> torch.autocast:
        """Where layers compute in the precision of the settings; in training only."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.training and self.half_precision)

    @property
    def generator_weights(self) -> list[nn.Parameter]:
        """What the generator's objective trains: the generator and the mask head."""
        head = [] if self.mask_head is None else list(self.mask_head.parameters())
        return [*self.generator.parameters(), *head]

    @property
    def kept(self) -> nn.ModuleDict:
        """What crafting needs."""
        parts: dict[str, nn.Module] = {"generator": self.generator}
        if self.mask_head is not None:
            parts |= {"discriminator": self.discriminator, "mask_head": self.mask_head}
        return nn.ModuleDict(parts)

    def adversarial(self, clean: Tensor, threat: ThreatModel, noise_source: torch.Generator | None = None) -> Tensor:
        """Clean N×3×H×W in [0, 1] → adversarial; differentiable, in [0, 1], within `threat` up to 8-bit rounding.

        The bound is symmetric in pixel space, epsilon · tanh(·). With a pixel budget the logits of the
        mask come from the pair (clean, unmasked adversarial): with Gumbel noise from `noise_source`
        (training), or without (crafting).
        """
        with self.reduced(clean.device):
            noise = self.generator(clean)
        noise = threat.radius * noise.float()
        if self.mask_head is not None and threat.pixels is not None:
            unmasked = (clean + noise.detach()).clamp(0.0, 1.0)
            with self.reduced(clean.device):
                with torch.no_grad():  # the mask trains the head, not the discriminator
                    maps = self.discriminator(clean, unmasked)
                logits = self.mask_head(maps, (clean.shape[-2], clean.shape[-1]))
            logits = logits.float()
            if noise_source is None:
                noise = noise * top_k(logits, threat.pixels)
            else:
                # the head's logits are divided by τ; so must the Gumbel noise be
                temperature = self.mask_head.log_temperature.exp()
                drawn = gumbel(logits.shape, noise_source).to(logits.device) / temperature
                noise = noise * straight_through_top_k(logits + drawn, threat.pixels)
        return (clean + noise).clamp(0.0, 1.0)


@dataclass(frozen=True)
class _Losses:
    """One batch's losses, still differentiable, and the largest change of a colour value."""

    generator: Tensor
    discriminator: Tensor
    parts: dict[str, Tensor]
    largest_noise: float

    def note(self) -> str:
        parts = ", ".join(f"{name} {value.item():.3g}" for name, value in self.parts.items())
        return f"loss {self.generator.item():.3g} ({parts}), noise up to {255 * self.largest_noise:.1f}/255"


@dataclass(frozen=True)
class _Objective:
    """Clean P×K batch → the losses of generator and discriminator."""

    settings: MisRanking
    source: Victim
    networks: _Networks
    threat: ThreatModel
    noise_source: torch.Generator
    data_name: str
    classes: int

    def __call__(self, clean: Tensor, identities: Tensor) -> _Losses:
        settings = self.settings
        adversarial = self.networks.adversarial(clean, self.threat, self.noise_source)
        parts = {name: weight * term for name, weight, term in self._reid_terms(clean, adversarial, identities)}
        if settings.perception != "none" and settings.perception_weight > 0:
            similarity = losses.perception_loss(clean, adversarial, settings.perception)
            parts["perception"] = settings.perception_weight * similarity
        discriminator = clean.new_zeros(())
        if settings.gan_weight > 0:
            other_shot = clean.unflatten(0, (-1, settings.batch_instances)).roll(1, dims=1).flatten(0, 1)
            kept = _running_statistics_kept(self.networks.discriminator)
            with kept, self.networks.reduced(clean.device):
                fake = score_maps(self.networks.discriminator(clean, adversarial))
                real = score_maps(self.networks.discriminator(clean, other_shot))
            parts["gan"] = settings.gan_weight * losses.generator_gan_loss(fake)
            discriminator = losses.discriminator_gan_loss(real, fake)
        total = torch.stack(list(parts.values())).sum() if parts else adversarial.sum() * 0.0
        return _Losses(total, discriminator, parts, (adversarial.detach() - clean).abs().max().item())

    def _reid_terms(
        self, clean: Tensor, adversarial: Tensor, identities: Tensor
    ) -> Iterator[tuple[str, float, Tensor]]:
        """(name, weight, loss) of the ReID losses that have weight."""
        settings, source = self.settings, self.source
        ranking = settings.reid_weight * settings.misranking_weight
        classification = settings.reid_weight * settings.misclassification_weight
        with torch.no_grad():
            references, clean_logits = _outputs(
                source, clean, ranking > 0 and settings.references == "clean", classification > 0
            )
        anchors, logits = _outputs(source, adversarial, ranking > 0, classification > 0)
        if anchors is not None:
            space: Distance = source.distance if settings.distance == "victim" else settings.distance
            others = anchors if references is None else references
            yield "mis-ranking", ranking, losses.misranking_loss(anchors, others, identities, settings.margin, space)
        if classification > 0:
            known, moved = _check_logits(source, clean_logits), _check_logits(source, logits)
            # identities are classes of the source only where it was trained on this data; else what it sees stands in
            own = source.trained_on == self.data_name or (not source.trained_on and known.shape[1] == self.classes)
            true = identities if own else known.argmax(dim=1)
            target = losses.misclassification_target(known, true, settings.label_smoothing)
            yield "misclassification", classification, losses.misclassification_loss(moved, target)


def _decay(share: float, steps: int) -> Callable[[int], float]:
    """Step → factor of the learning rate: 1, then linearly towards 0 over the last `share` of the steps."""
    return lambda step: min(1.0, (steps - step) / max(share * steps, 1.0))


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random horizontal flip (half of the images) and random translation (another half).

    Translation enlarges by 1.125 and crops the old size, as in the paper's training of its victims.
    N×3×H×W in [0, 1] → the same.
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


def _training_batches(settings: MisRanking, data: TrainingData, context: FitContext) -> Iterator[tuple[Tensor, Tensor]]:
    p, k = settings.batch_identities, settings.batch_instances
    for indices in pk_batches(data.identities, p, k, context.generator):
        images, identities = data.batch(indices, context.device)
        # channels last: a fifth faster through the generator on a CPU
        yield augment(images, context.generator).contiguous(memory_format=torch.channels_last), identities


def _outputs(source: Victim, images: Tensor, embeddings: bool, logits: bool) -> tuple[Tensor | None, Tensor | None]:
    """Those of embeddings and logits that are wanted, in one pass where the source can."""
    if embeddings and logits:
        return source.outputs(images)
    return source.embed(images) if embeddings else None, source.logits(images) if logits else None


def _check_logits(source: Victim, logits: Tensor | None) -> Tensor:
    name = source.name or type(source).__name__
    if logits is None or logits.shape[1] < 2:
        what = "no logits" if logits is None else "a single class"
        raise BenchError(
            f"misranking: {name} has {what} for the misclassification loss: set misclassification_weight to 0"
        )
    return logits


class _running_statistics_kept:  # noqa: N801, a context manager reads like a function
    """Batch statistics as ever, running ones untouched.

    Crafting runs the discriminator only to make the mask, so its running statistics are those of that pass,
    not a mixture with the real and fake pairs of the GAN loss.
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


def _check_images(data: TrainingData, normalisation: Normalisation) -> None:
    height, width = data.images.shape[1:3]
    if min(height, width) < SMALLEST_SIDE:
        raise BenchError(
            f"misranking needs images of at least {SMALLEST_SIDE}×{SMALLEST_SIDE} pixels; those of {data.name} are "
            f"{height}×{width}"
        )
    # the quarter-scale discriminator ends at 1/32, and one value has no variance of its own
    if normalisation == "instance" and max(height, width) <= 32:
        raise BenchError(
            f"misranking: instance normalisation needs a side above 32 pixels; images of {data.name} are "
            f"{height}×{width}: use normalisation batch"
        )


def _second_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[min(1, len(lines) - 1)].rstrip(".")
