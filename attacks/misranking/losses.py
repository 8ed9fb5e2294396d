"""The four losses of Deep Mis-Ranking (Wang et al., CVPR 2020, arXiv 2004.04199), as described in the paper.

The released code differs from the paper in ways that change results. Each function names the differences; `released`
implements them.
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
    """N×D and M×D embeddings → N×M squared Euclidean distances.

    For "cosine" the embeddings are scaled to unit length first (distances in [0, 4]).
    """
    if distance == "cosine":
        anchors, references = functional.normalize(anchors, dim=1), functional.normalize(references, dim=1)
    return (anchors.unsqueeze(1) - references.unsqueeze(0)).square().sum(dim=2)


def misranking_loss(
    anchors: Tensor, references: Tensor, identities: Tensor, margin: float = 0.3, distance: Distance = "euclidean"
) -> Tensor:
    """The inverted triplet loss: mean over anchors of [max_different d² − min_same d² + margin]₊.

    Reference i shows the same image as anchor i and is excluded. The released code keeps that pair, whose distance is 0
    among adversarial images, which disables its same-identity term. It also takes square roots and a logarithm; here
    distances are squared and the loss is at least 0.

    Args:
        anchors: N×D embeddings of adversarial images.
        references: N×D embeddings of the adversarial images (`anchors` again, the paper) or of the clean images.
        identities: int64 N; each identity at least twice, and at least two identities.
        margin: Δ, in the units of the squared distance.
        distance: see `squared_distances`.
    """
    squares = squared_distances(anchors, references, distance)
    same = identities.unsqueeze(1) == identities.unsqueeze(0)
    return inverted_triplet(squares, same, without_self(same), margin)


def without_self(same: Tensor) -> Tensor:
    """bool N×N without its diagonal."""
    return same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)


def inverted_triplet(matrix: Tensor, same: Tensor, positives: Tensor, margin: float) -> Tensor:
    """Mean over rows of [max over not `same` − min over `positives` + margin]₊ of N×N distances; masks are bool N×N."""
    farthest_different = matrix.masked_fill(same, -torch.inf).amax(dim=1)
    nearest_same = matrix.masked_fill(~positives, torch.inf).amin(dim=1)
    return functional.relu(farthest_different - nearest_same + margin).mean()


def least_likely_class(logits: Tensor, identities: Tensor) -> Tensor:
    """N×K logits and int64 N true classes → int64 N×1, the class with the smallest logit among the others."""
    return logits.scatter(1, identities.unsqueeze(1), torch.inf).argmin(dim=1, keepdim=True)


def misclassification_target(clean_logits: Tensor, identities: Tensor, smoothing: float = 0.1) -> Tensor:
    """Target probabilities of the misclassification loss: mostly the least likely class of the clean image.

    (1 − δ) on the least likely class plus δ / (K − 1) on every class but the true one, which gets 0. Each row sums to
    1. The released code uses the least likely class of the adversarial image, which changes in training, and sets the
    columns of all identities of the batch to 0.

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
    """Mean cross entropy of N×K logits and N×K target probabilities. The released code takes its logarithm."""
    return functional.cross_entropy(adversarial_logits, target)


def perception_loss(clean: Tensor, adversarial: Tensor, kind: Perception) -> Tensor:
    """1 − similarity, mean over images: N×3×H×W in [0, 1] twice → scalar, 0 for equal images."""
    if kind == "none":
        return clean.new_zeros(())
    similarity = ms_ssim if kind == "ms-ssim" else ssim
    return 1.0 - similarity(clean, adversarial).mean()


def scores_to(scores: Sequence[Tensor], value: float) -> Tensor:
    """Least-squares GAN loss: mean squared difference between scores and `value`, averaged over the scales.

    The released code only uses the quarter scale.
    """
    return torch.stack([(score.float() - value).square().mean() for score in scores]).mean()


def generator_gan_loss(fake: Sequence[Tensor]) -> Tensor:
    """GAN loss of the generator: pairs (clean, adversarial) should score 1."""
    return scores_to(fake, 1.0)


def discriminator_gan_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """GAN loss of the discriminator: real pairs should score 1 and pairs (clean, adversarial) 0; half the sum."""
    return (scores_to(real, 1.0) + scores_to(fake, 0.0)) / 2
