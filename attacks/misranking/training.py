"""Training of the generator: batches, steps, and what is reported on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import FitContext, State, ThreatModel, TrainingData, Victim
from reid_attack_bench.data.sampling import pk_batches
from reid_attack_bench.errors import BenchError

from .model import Networks
from .objective import Objective

if TYPE_CHECKING:
    from .attack import MisRanking


PATIENCE = 20  # training steps in a row without any visible noise before the fit gives up


def train(
    settings: MisRanking,
    networks: Networks,
    source: Victim,
    data: TrainingData,
    threat: ThreatModel,
    context: FitContext,
) -> State:
    """One generator step, then one discriminator step per batch."""
    networks.train()
    objective = Objective(settings, source, networks, threat, context.generator, data.name, data.identity_count)
    trains_discriminator = settings.gan_weight > 0
    betas = (settings.betas[0], settings.betas[1])
    generator_weights = networks.generator_weights
    generator_optimiser = torch.optim.Adam(generator_weights, settings.learning_rate, betas)
    discriminator_weights = list(networks.discriminator.parameters())
    discriminator_optimiser = torch.optim.Adam(discriminator_weights, settings.learning_rate, betas)

    # nothing can be learnt within an empty budget, and the untrained networks respect it
    steps = settings.steps if threat.epsilon else 0
    decay = _decay(settings.decay, steps)
    batches = _training_batches(settings, data, context)
    invisible = 0
    for step in range(1, steps + 1):
        for group in (*generator_optimiser.param_groups, *discriminator_optimiser.param_groups):
            group["lr"] = settings.learning_rate * decay(step - 1)
        clean, identities = next(batches)
        losses_now = objective(clean, identities, mask_size(settings, threat, clean, step - 1, steps))
        if not (math.isfinite(losses_now.generator.item()) and math.isfinite(losses_now.discriminator.item())):
            raise BenchError(
                f"misranking: the loss is not finite at step {step} of {steps} ({losses_now.note()}): "
                f"lower learning_rate ({settings.learning_rate:g}) or reid_weight ({settings.reid_weight:g})"
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

        # less than half an 8-bit step everywhere is rounded away
        invisible = invisible + 1 if losses_now.largest_noise < 0.5 / 255 else 0
        if invisible >= PATIENCE:
            raise BenchError(
                f"misranking: the noise has vanished ({PATIENCE} batches without a visible change, step {step} "
                f"of {steps}): raise reid_weight ({settings.reid_weight:g}) or lower perception_weight "
                f"({settings.perception_weight:g}) and gan_weight ({settings.gan_weight:g})"
            )
        context.progress(step, steps, losses_now.note())
        del losses_now  # its graph, before the next one is built
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in networks.kept.state_dict().items()}


def _decay(share: float, steps: int) -> Callable[[int], float]:
    """Step → factor of the learning rate: 1, then linearly towards 0 over the last `share` of the steps."""
    return lambda step: min(1.0, (steps - step) / max(share * steps, 1.0))


def mask_size(settings: MisRanking, threat: ThreatModel, images: Tensor, done: int, steps: int) -> int | None:
    """Pixels that the masks keep after `done` of `steps`, from all positions of N×3×H×W down to the budget's k."""
    k, positions = threat.pixels, images.shape[-2] * images.shape[-1]
    if k is None or settings.pixel_schedule == "direct" or k >= positions:
        return k
    way = min(2 * done / steps, 1.0)
    return round(positions * (k / positions) ** way)


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
