"""The detector that judges result lists: its score by hand, its calibration."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reid_attack_bench.contracts import Distance, FitContext, TrainingData, Victim
from reid_attack_bench.errors import BenchError
from reid_attack_bench.victims.defences.list_detector import ListDetector, inconsistency
from tests.plugins.toy import ToyVictim

CONTEXT = FitContext(torch.device("cpu"), torch.Generator().manual_seed(0))


def data(count: int) -> TrainingData:
    images = np.random.default_rng(0).integers(0, 256, (count, 64, 32, 3), dtype=np.uint8)
    return TrainingData("toys", images, np.arange(count) // 2, np.arange(count) % 2)


def ranks_by(distance: Distance) -> Victim:
    victim = Victim()
    victim.distance = distance
    return victim


def test_the_score_by_hand() -> None:
    """Squared distances: of the query to its list 9 and 16, within the list 25."""
    nearest = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])
    assert inconsistency(nearest, torch.tensor([[9.0, 16.0]]), ranks_by("euclidean")).tolist() == [0.5]
    assert inconsistency(nearest, torch.tensor([[0.5, 0.7]]), ranks_by("cosine")).tolist() == pytest.approx([0.6])


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_its_share_of_training_images_is_refused_each_among_the_others(distance) -> None:
    victim = ToyVictim().eval().requires_grad_(False)
    victim.distance = distance
    detector = ListDetector(length=3, refused=0.2)
    toys = data(40)
    state = detector.fit(victim, toys, CONTEXT)
    defended = detector.defend(victim, state)
    assert defended.list_length == 3
    images, _ = toys.batch(range(40))
    embeddings = victim.embed(images).double()
    if distance == "cosine":
        embeddings = torch.nn.functional.normalize(embeddings, dim=1)
    apart = torch.cdist(embeddings, embeddings).square() / (2 if distance == "cosine" else 1)
    scores = []
    for i in range(40):
        near = [j for j in apart[i].argsort().tolist() if j != i][:3]
        pairs = [apart[a, b] for a in near for b in near if a != b]
        scores.append(float(apart[i, near].mean() / torch.stack(pairs).mean()))
    assert float(state["threshold"]) == pytest.approx(float(np.quantile(scores, 0.8)), rel=1e-3)
    assert sum(score > float(state["threshold"]) for score in scores) == 8


def test_too_few_images_for_a_list() -> None:
    with pytest.raises(BenchError, match="4 training images are too few for lists of 10"):
        ListDetector().fit(ToyVictim(), data(4), CONTEXT)
