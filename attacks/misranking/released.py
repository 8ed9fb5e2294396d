"""Behaviours of the authors' released code that differ from their paper and change results.

Each behaviour has a name and is switched on by itself, or with all others by `variant: released`. The default follows
the paper. The implementation is our own, written from a description of the released code's behaviour.

Not included, because they are not part of the attack: evaluation on classifier logits, selection of the checkpoint on
the test set, unseeded sampling, and an option that crashes (PatchGAN). The harness enforces the budget and [0, 1] in
any case. Loss weights and network sizes are the same in both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_attack_bench.contracts import IMAGENET_MEAN, IMAGENET_STD, Distance
from reid_attack_bench.metrics.ssim import SCALE_WEIGHTS, SIGMA, WINDOW

from . import losses

BEHAVIOURS: dict[str, str] = {
    "self_pair": "an anchor is among the images of its own identity, so the nearest one is always at distance 0",
    "log_losses": "the logarithm of both ReID losses, and distances without the square; needs self_pair",
    "raw_embeddings": "the mis-ranking loss uses unnormalised embeddings, also for a victim that ranks by cosine",
    "moving_target": "the least likely class is that of the adversarial image and changes from step to step",
    "batch_smoothing": "label smoothing leaves out the classes of the whole batch in every row",
    "normalised_ms_ssim": "MS-SSIM of ImageNet-normalised images, range 2, one value a batch, coarsest scale 4 times",
    "quarter_scale": "both GAN losses use the quarter scale only, so the other two scales are never trained",
    "zero_padded_pyramid": "the discriminator's image pyramid is padded with zeros before it is averaged",
    "normalised_input": "generator and discriminator take ImageNet-normalised images",
    "spectral_dimension": "the spectral norm of a transposed convolution is that of its weight by input channels",
    "untrained_mask": "the mask head stays at its initialisation",
    "gumbel_at_test": "crafting adds Gumbel noise, so two runs choose different pixels",
    "asymmetric_bound": "noise is an image minus the ImageNet mean, rescaled to epsilon per image and channel",
    "straight_through": "the gradient ignores the bound, and nearly ignores the slope of tanh",
    "unit_initialisation": "convolutions without spectral norm start with N(0, 1), batch norms with N(1, 0.02)",
    "unclamped": "training uses adversarial images outside [0, 1]",
}
"""Name → behaviour of the released code."""

RENAMED = {
    "different_people": "real pairs of two people are the paper's and the default, so leave it out (pairs of one "
    "person: `real_pairs: same`)"
}
"""Names of earlier versions → what to write instead."""


def misranking_loss(
    anchors: Tensor,
    references: Tensor,
    identities: Tensor,
    margin: float,
    distance: Distance,
    *,
    self_pair: bool,
    log_losses: bool,
) -> Tensor:
    """`losses.misranking_loss` with these two behaviours; a scalar.

    With the self pair the same-identity term is always 0, and the rest pulls all adversarial features to one point.
    Only the self pair bounds the logarithm below, by log(margin).
    """
    matrix = losses.squared_distances(anchors, references, distance)
    if log_losses:
        matrix = matrix.clamp_min(1e-12).sqrt()  # the slope of the square root at 0 is infinite
    same = identities.unsqueeze(1) == identities.unsqueeze(0)
    positives = same if self_pair else losses.without_self(same)
    loss = losses.inverted_triplet(matrix, same, positives, margin)
    return loss.log() if log_losses else loss


def misclassification_target(
    clean_logits: Tensor,
    adversarial_logits: Tensor,
    identities: Tensor,
    smoothing: float,
    *,
    moving_target: bool,
    batch_smoothing: bool,
) -> Tensor:
    """`losses.misclassification_target` with these two behaviours; N×K, no gradient.

    The moving target may be the true class, and rows smoothed over fewer classes sum to less than 1.
    """
    true = identities.unsqueeze(1)
    if moving_target:
        aim = adversarial_logits.detach().argmin(dim=1, keepdim=True)
    else:
        aim = losses.least_likely_class(clean_logits, identities)
    spread = torch.full_like(clean_logits, smoothing / (clean_logits.shape[1] - 1))
    spread = spread.index_fill(1, identities, 0.0) if batch_smoothing else spread.scatter(1, true, 0.0)
    return spread.scatter_add(1, aim, torch.full_like(spread[:, :1], 1.0 - smoothing))


def ms_ssim(clean: Tensor, adversarial: Tensor) -> Tensor:
    """MS-SSIM as released: one value for N×3×H×W in [0, 1] twice; NaN where a scale's structure term is negative.

    Five scales at any image size, with a window that shrinks with the image. The luminance of the coarsest scale enters
    each of the four factors.
    """
    mean, std = _per_channel(IMAGENET_MEAN, clean), _per_channel(IMAGENET_STD, clean)
    x, y = (clean - mean) / std, (adversarial - mean) / std
    structures: list[Tensor] = []
    similarity = x.new_zeros(())
    for scale in range(len(SCALE_WEIGHTS)):
        if scale:
            x, y = functional.avg_pool2d(x, 2), functional.avg_pool2d(y, 2)
        similarity, structure = _ssim(x, y)
        structures.append(structure)
    weights = x.new_tensor(SCALE_WEIGHTS)
    factors = torch.stack(structures[:-1]) ** weights[:-1] * similarity ** weights[-1]
    return factors.prod()


def _ssim(x: Tensor, y: Tensor, span: float = 2.0) -> tuple[Tensor, Tensor]:
    """Means of SSIM and of its contrast-structure term, with a window of at most 11 pixels."""
    side = min(WINDOW, *x.shape[-2:])
    position = torch.arange(side, dtype=x.dtype, device=x.device) - side // 2
    bell = (-position.square() / (2 * SIGMA**2)).exp()
    bell = bell / bell.sum()
    window = (bell.unsqueeze(1) * bell).expand(x.shape[1], 1, side, side)

    def blur(values: Tensor) -> Tensor:
        return functional.conv2d(values, window, groups=x.shape[1])

    mean_x, mean_y = blur(x), blur(y)
    variances = blur(x * x) - mean_x.square() + blur(y * y) - mean_y.square()
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    structure = (2 * covariance + c2) / (variances + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return (luminance * structure).mean(), structure.mean()


def bounded_noise(activations: Tensor, radius: float, *, asymmetric_bound: bool, straight_through: bool) -> Tensor:
    """The generator's output before tanh, N×3×H×W → noise within ±radius, in the range of the images.

    Args:
        activations: float32, of any size.
        radius: epsilon in [0, 1].
        asymmetric_bound: (tanh + 1) / 2 minus the ImageNet mean, scaled down per image and channel until its largest
            magnitude is the radius; otherwise radius · tanh.
        straight_through: ignore the bound in the backward pass. The released code hides it from autograd and thereby
            overwrites the output that tanh saves for its slope 1 − tanh² with the noise in units of the ImageNet
            deviation: the slope is nearly 1 even where tanh is saturated.
    """

    def bound(values: Tensor) -> Tensor:
        raw = values.tanh()
        if not asymmetric_bound:
            return radius * raw
        centred = (raw + 1.0) / 2.0 - _per_channel(IMAGENET_MEAN, raw)
        largest = centred.abs().amax(dim=(2, 3), keepdim=True).clamp_min(torch.finfo(raw.dtype).tiny)
        return centred * (radius / largest).clamp(max=1.0)

    if not straight_through:
        return bound(activations)
    with torch.no_grad():
        noise = bound(activations)
    result: Tensor = _StraightThrough.apply(activations, noise)
    return result


class _StraightThrough(torch.autograd.Function):
    """Forward the given noise, backward σ · (1 − (noise / σ)²), σ being the ImageNet deviation of the channel."""

    @staticmethod
    def forward(ctx: Any, activations: Tensor, noise: Tensor) -> Tensor:
        ctx.save_for_backward(noise)
        return noise.view_as(noise)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (noise,) = ctx.saved_tensors
        std = _per_channel(IMAGENET_STD, noise)
        return gradient * std * (1.0 - (noise / std).square()), None


def initialise(network: nn.Module) -> None:
    """Initialise in place: N(0, 1) for convolutions without spectral normalisation, N(1, 0.02) for batch norms."""
    for module in network.modules():
        normalised = nn.utils.parametrize.is_parametrized(module)
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and not normalised:
            nn.init.normal_(module.weight, 0.0, 1.0)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)


def normalise_by_rows(network: nn.Module) -> None:
    """Take the spectral norm of transposed convolutions over dimension 0 of the weight, in place.

    That dimension is the input channels of a transposed convolution. PyTorch's `spectral_norm` takes the output
    channels, dimension 1; the released code takes dimension 0 of every weight.
    """
    for module in network.modules():
        if isinstance(module, nn.ConvTranspose2d) and nn.utils.parametrize.is_parametrized(module):
            nn.utils.parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
            nn.utils.parametrizations.spectral_norm(module, dim=0)


def imagenet_normalised(images: Tensor) -> Tensor:
    """N×3×H×W in [0, 1] → y such that 2y − 1, which the networks compute, is the ImageNet-normalised image."""
    normalised = (images - _per_channel(IMAGENET_MEAN, images)) / _per_channel(IMAGENET_STD, images)
    return (normalised + 1.0) / 2.0


def _per_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)
