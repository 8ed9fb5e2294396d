"""The four terms of the Deep Mis-Ranking objective (Wang et al., CVPR 2020, arXiv 2004.04199), as the paper means them.

The released code departs from the paper in ways that change results; each function says where, and `released`
has what it does instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import Distance
from reid_attack_bench.metrics.ssim import ms_ssim, ssim

Perception = Literal["ms-ssim", "ssim", "none"]


def squared_distances(anchors: Tensor, references: Tensor, distance: Distance) -> Tensor:
    """N×D and M×D embeddings → N×M squared L2 distances in the space where the victim ranks.

    A "cosine" victim ranks directions, so its embeddings are scaled to unit length (distances in
    [0, 4]); a "euclidean" victim's are taken as they are, and its distances have its own scale.
    """
    if distance == "cosine":
        anchors, references = functional.normalize(anchors, dim=1), functional.normalize(references, dim=1)
    return (anchors.unsqueeze(1) - references.unsqueeze(0)).square().sum(dim=2)


def misranking_loss(
    anchors: Tensor, references: Tensor, identities: Tensor, margin: float = 0.3, distance: Distance = "euclidean"
) -> Tensor:
    """The inverted triplet loss: mean over anchors of [max_different d² − min_same d² + margin]₊.

    Reference i shows the same image as anchor i (it *is* anchor i where all images are adversarial)
    and is never a candidate: the released code keeps that pair, whose distance is always 0, so that its
    same-identity half never acts. It also takes square roots and a logarithm, which only that slip
    keeps from −infinity; here distances are squared and the loss is bounded below by 0.

    Args:
        anchors: N×D embeddings of adversarial images.
        references: N×D embeddings: `anchors` again (the paper), or those of the clean images.
        identities: int64 N; each identity at least twice, and at least two identities.
        margin: Δ, in the units of the squared distance.
        distance: how the victim ranks, see `squared_distances`.
    """
    squares = squared_distances(anchors, references, distance)
    same = identities.unsqueeze(1) == identities.unsqueeze(0)
    return inverted_triplet(squares, same, without_self(same), margin)


def without_self(same: Tensor) -> Tensor:
    """bool N×N without its diagonal."""
    return same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)


def inverted_triplet(apart: Tensor, same: Tensor, positives: Tensor, margin: float) -> Tensor:
    """Mean over the rows of [max of `apart` where not `same` − min of it where `positives` + margin]₊, all N×N."""
    farthest_different = apart.masked_fill(same, -torch.inf).amax(dim=1)
    nearest_same = apart.masked_fill(~positives, torch.inf).amin(dim=1)
    return functional.relu(farthest_different - nearest_same + margin).mean()


def least_likely_class(logits: Tensor, identities: Tensor) -> Tensor:
    """N×K logits and int64 N true classes → int64 N×1, the class of the smallest logit but the true one."""
    return logits.scatter(1, identities.unsqueeze(1), torch.inf).argmin(dim=1, keepdim=True)


def misclassification_target(clean_logits: Tensor, identities: Tensor, smoothing: float = 0.1) -> Tensor:
    """Where the logits shall go: mostly to the class that the victim finds least likely for the *clean* image.

    (1 − δ) on the least likely class and δ / (K − 1) on every class but the true one, which gets 0;
    each row sums to 1. The true class is never the one aimed at. The released code takes the least likely
    class of the adversarial image, a moving target, and zeroes the column of every identity of the batch.

    Args:
        clean_logits: N×K, K >= 2.
        identities: int64 N, true classes 0 … K−1.
        smoothing: δ.

    Returns:
        N×K probabilities.
    """
    least_likely = least_likely_class(clean_logits, identities)
    spread = torch.full_like(clean_logits, smoothing / (clean_logits.shape[1] - 1))
    spread = spread.scatter(1, identities.unsqueeze(1), 0.0)
    return spread.scatter_add(1, least_likely, torch.full_like(spread[:, :1], 1.0 - smoothing))


def misclassification_loss(adversarial_logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross entropy of N×K logits against N×K target probabilities (no logarithm of it, unlike the release)."""
    return functional.cross_entropy(adversarial_logits, target)


def perception_loss(clean: Tensor, adversarial: Tensor, kind: Perception) -> Tensor:
    """1 − similarity, mean over images: N×3×H×W in [0, 1] twice → scalar, 0 for equal images."""
    if kind == "none":
        return clean.new_zeros(())
    similarity = ms_ssim if kind == "ms-ssim" else ssim
    return 1.0 - similarity(clean, adversarial).mean()


def scores_to(scores: Sequence[Tensor], value: float) -> Tensor:
    """Least-squares GAN loss: mean squared distance of the scores from `value`, mean over the scales.

    Every scale has the same say; the released code reads the quarter scale only.
    """
    return torch.stack([(score.float() - value).square().mean() for score in scores]).mean()


def generator_gan_loss(fake: Sequence[Tensor]) -> Tensor:
    """What the generator wants: its pairs (clean, adversarial) judged real, score 1."""
    return scores_to(fake, 1.0)


def discriminator_gan_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """What the discriminator wants: 1 for (clean, another clean shot), 0 for (clean, adversarial); half the sum."""
    return (scores_to(real, 1.0) + scores_to(fake, 0.0)) / 2
