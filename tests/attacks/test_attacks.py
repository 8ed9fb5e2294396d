"""The gradient attacks: budgets as properties, and golden values where the answer is known."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reid_attack_bench.adversary.budget import enforce
from reid_attack_bench.attacks.metric import MetricFGSM, MetricPGD
from reid_attack_bench.attacks.noise import Noise
from reid_attack_bench.attacks.pgd import FGSM, PGD
from reid_attack_bench.contracts import Batch, ReferenceImages, ThreatModel, Victim, distances, to_float
from reid_attack_bench.errors import BenchError
from tests.plugins.toy import ToyVictim

ATTACKS = [
    Noise(), FGSM(), PGD(steps=3), PGD(steps=2, random_start=False, step_size=20),
    PGD(steps=3, objective="least_likely"), PGD(steps=3, objective="cosine"), MetricFGSM(), MetricPGD(steps=3),
    MetricFGSM(references="same_identity"), MetricPGD(steps=2, references="same_identity"),
]  # fmt: skip


def batch_for(clean: np.ndarray, attack) -> Batch:
    people = np.arange(len(clean)) // 2
    guides = ReferenceImages(clean[:3][::-1].copy(), people[:3][::-1].copy(), np.zeros(3, np.int64))
    return Batch(
        to_float(clean),
        torch.from_numpy(people) if "labels" in attack.needs else None,
        guides if "gallery" in attack.needs else None,
    )


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
@given(seed=st.integers(0, 2**31), epsilon=st.integers(0, 64), pixels=st.one_of(st.none(), st.integers(1, 600)))
@settings(max_examples=8, deadline=None)
def test_every_attack_keeps_every_budget(attack, seed: int, epsilon: int, pixels: int | None) -> None:
    clean = np.random.default_rng(seed).integers(0, 256, (4, 32, 16, 3), dtype=np.uint8)
    threat, victim = ThreatModel(epsilon, pixels), ToyVictim().eval().requires_grad_(False)
    crafted = [
        attack.craft(victim, batch_for(clean, attack), threat, torch.Generator().manual_seed(seed)) for _ in range(2)
    ]
    stored = enforce(crafted[0], clean, threat, attack="x")
    assert torch.equal(*crafted), "the generator alone decides"
    if epsilon >= 2:
        assert (stored != clean).any()


class Linear(Victim):
    """embed(x) = w·x, logits = (w·x, −w·x): every gradient is known."""

    def __init__(self, distance: str = "euclidean") -> None:
        super().__init__()
        self.distance = distance
        self.weights = torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1)

    def embed(self, images):
        return (images * self.weights).sum(dim=(2, 3))

    def logits(self, images):
        score = self.embed(images).sum(dim=1, keepdim=True)
        return torch.cat([score, -score], dim=1)


def test_fgsm_is_one_signed_step_against_the_predicted_class() -> None:
    clean = torch.full((2, 3, 8, 4), 0.5)
    clean[1] = torch.tensor([0.2, 0.9, 0.2]).view(3, 1, 1)  # score below zero: the other class is predicted
    crafted = FGSM().craft(Linear(), Batch(clean), ThreatModel(8), torch.Generator())
    rises = torch.tensor([1.0, -1.0, 1.0]).view(3, 1, 1)
    sign = torch.stack([rises, rises])  # both scores are negative here, so class 2 is predicted and the score must rise
    assert (Linear().logits(clean).argmax(1) == 1).all()
    torch.testing.assert_close(crafted, clean + sign * 8 / 255)


def test_pgd_without_random_start_ends_on_the_corner_of_a_linear_model() -> None:
    clean = torch.full((1, 3, 8, 4), 0.5)
    attack = PGD(steps=4, random_start=False)
    torch.testing.assert_close(
        attack.craft(Linear(), Batch(clean), ThreatModel(8), torch.Generator()),
        FGSM().craft(Linear(), Batch(clean), ThreatModel(8), torch.Generator()),
    )
    early = PGD(steps=1, step_size=3, random_start=False).craft(
        Linear(), Batch(clean), ThreatModel(8), torch.Generator()
    )
    torch.testing.assert_close((early - clean).abs(), torch.full_like(clean, 3 / 255))


class FromLogits(Victim):
    """Logits that are the first pixel's three values: which way an attack goes can be read off the image."""

    def embed(self, images):
        return images[:, :, 0, 0]

    def logits(self, images):
        return 10 * self.embed(images)


def test_objectives_of_pgd_lead_where_they_say() -> None:
    clean = torch.full((1, 3, 8, 4), 0.5)
    clean[0, :, 0, 0] = torch.tensor([0.6, 0.55, 0.4])

    def pixel(objective: str) -> torch.Tensor:
        attack = PGD(steps=10, objective=objective)
        crafted = attack.craft(FromLogits(), Batch(clean), ThreatModel(8), torch.Generator().manual_seed(0))
        return ((crafted - clean)[0, :, 0, 0] * 255).round()

    untargeted, least_likely, cosine = pixel("untargeted"), pixel("least_likely"), pixel("cosine")
    assert untargeted[:2].tolist() == [-8, 8], "away from the predicted class"
    assert least_likely.tolist() == [-8, -8, 8], "to the least likely class, away from others"
    assert cosine.unique().tolist() == [-8, 8], "to a corner, and not along the direction it came from"
    with pytest.raises(BenchError, match="random_start"):
        PGD(objective="cosine", random_start=False)
    with pytest.raises(BenchError, match="least_likely"):
        PGD(objective="best")


def test_metric_attacks_move_the_embedding_far_more_than_noise() -> None:
    victim = ToyVictim().eval().requires_grad_(False)
    clean = torch.randint(0, 256, (6, 3, 64, 32), generator=torch.Generator().manual_seed(1)) / 255
    before = victim.embed(clean)

    def moved(attack) -> float:
        crafted = attack.craft(victim, Batch(clean), ThreatModel(8), torch.Generator().manual_seed(0))
        return distances(victim.embed(crafted), before, "cosine").diag().mean().item()

    noise, one, many = moved(Noise()), moved(MetricFGSM()), moved(MetricPGD(steps=10))
    assert 3 * noise < one < many


def test_same_identity_references_are_exactly_the_guides_of_that_identity() -> None:
    """The reference distance of the module's text, against a literal loop."""
    from reid_attack_bench.attacks.common.objectives import embedding_distance

    victim = ToyVictim().eval().requires_grad_(False)
    rng = np.random.default_rng(0)
    images, guides = (rng.integers(0, 256, (n, 64, 32, 3), dtype=np.uint8) for n in (3, 4))
    people, others = np.array([5, 7, 9]), np.array([7, 5, 5, 1])
    batch = Batch(to_float(images), torch.from_numpy(people), ReferenceImages(guides, others, np.zeros(4, np.int64)))
    moved = (to_float(images) + 0.05).clamp(0, 1)
    got = embedding_distance(victim, batch, "same_identity")(moved)
    for row, person in enumerate(people):
        references = [guides[i] for i in range(4) if others[i] == person] or [images[row]]
        expected = [
            1 - torch.cosine_similarity(victim.embed(moved[row : row + 1]), victim.embed(to_float(r[None]))).item()
            for r in references
        ]
        assert got[row].item() == pytest.approx(sum(expected) / len(expected), abs=1e-6)


def test_labels_and_gallery_are_declared_only_where_read() -> None:
    assert MetricPGD().needs == {"gradients"}
    assert MetricPGD(references="same_identity").needs == {"gradients", "labels", "gallery"}
    assert PGD().needs == {"gradients", "logits"}
    assert Noise().needs == frozenset()


def test_a_source_without_classifier_is_told() -> None:
    class NoLogits(Linear):
        name = "bare"

        def logits(self, images):
            return None

    with pytest.raises(BenchError, match="bare has no classifier"):
        FGSM().craft(NoLogits(), Batch(torch.rand(1, 3, 8, 4)), ThreatModel(8), torch.Generator())


def test_a_metric_attack_refuses_to_start_where_the_gradient_is_zero() -> None:
    with pytest.raises(BenchError, match="gradient is zero"):
        MetricFGSM(start=0)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: PGD(steps=0), "pgd: steps must be a whole number of at least 1, not 0"),
        (lambda: PGD(step_size=-1), "pgd: step_size must be a positive number, not -1"),
        (lambda: PGD(objective="cosine", stop_early=True), "pgd: stop_early requires objective untargeted, not cosine"),
        (lambda: MetricPGD(references="others"), "metric_pgd: references must be one of self, same_identity"),
        (lambda: MetricFGSM(start=1.5), "metric_fgsm: start must be a number from 0 to 1, not 1.5"),
    ],
)
def test_wrong_settings_are_named(build, says: str) -> None:
    with pytest.raises(BenchError, match=says):
        build()


def test_attacks_import_without_the_command_line() -> None:
    assert "reid_attack_bench.attacks.pgd" in sys.modules
    assert isinstance(ToyVictim(), nn.Module)
