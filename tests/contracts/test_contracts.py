"""Threat models and images between parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_attack_bench.adversary.budget import enforce
from reid_attack_bench.contracts import ThreatModel, distances, preprocess, to_float, to_uint8
from reid_attack_bench.errors import BenchError, BudgetError


@given(st.integers(0, 2**31), st.integers(0, 255), st.one_of(st.none(), st.integers(1, 60)))
@settings(max_examples=60, deadline=None)
def test_a_projected_image_passes_the_referee(seed: int, epsilon: int, pixels: int | None) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(0, 256, (3, 7, 6, 3), generator=generator, dtype=torch.uint8).numpy()
    wild = torch.rand(3, 3, 7, 6, generator=generator) * 3 - 1
    threat = ThreatModel(epsilon, pixels)
    stored = enforce(threat.project(wild, to_float(clean)), clean, threat, attack="x")
    change = np.abs(stored.astype(int) - clean.astype(int))
    assert change.max() <= epsilon
    assert (change.max(axis=3) > 0).sum(axis=(1, 2)).max() <= (pixels or 42)
    if epsilon == 255 and pixels is None:  # nothing is projected away but what is outside [0, 1]
        assert np.array_equal(stored, to_uint8(wild.clamp(0, 1)))


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_eight_bit_images_survive_the_round_trip(seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    assert np.array_equal(to_uint8(to_float(images)), images)


def test_the_referee_names_attack_image_and_excess() -> None:
    clean = np.full((3, 8, 8, 3), 100, np.uint8)
    images = to_float(clean)
    images[1, 0, 2, 3] += 9 / 255
    with pytest.raises(BudgetError, match=r"'pgd'.* image 11: 9/255 against epsilon 8/255 \(excess 1/255\)"):
        enforce(images, clean, ThreatModel(8), attack="pgd", first_index=10)
    assert enforce(images, clean, ThreatModel(9), attack="pgd")[1, 2, 3, 0] == 109
    images[2, :, :2, :2] += 3 / 255
    with pytest.raises(BudgetError, match=r"image 2: 4 pixels against 3 \(excess 1\)"):
        enforce(images, clean, ThreatModel(9, pixels=3), attack="pgd")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda x: x[:, :, 1:], r"returned \(2, 3, 7, 8\)"),
        (lambda x: x.numpy(), "returned ndarray"),
        (lambda x: x * float("nan"), "NaN or infinity for image 0"),
        (lambda x: x - 1, "left the valid range"),
    ],
)
def test_the_referee_refuses_what_is_no_image(spoil, says) -> None:
    clean = np.full((2, 8, 8, 3), 100, np.uint8)
    with pytest.raises(BudgetError, match=says):
        enforce(spoil(to_float(clean)), clean, ThreatModel(8), attack="x")


@pytest.mark.parametrize(
    "wrong",
    [{"epsilon": 2.5}, {"epsilon": 256}, {"epsilon": True}, {"pixels": 0}, {"perturbs": "probe"}, {"access": "?"}],
)
def test_a_threat_model_refuses_nonsense(wrong: dict) -> None:
    with pytest.raises(BenchError, match=next(iter(wrong))):
        ThreatModel(**wrong)


def test_pixel_scores_choose_the_pixels() -> None:
    clean = torch.full((1, 3, 4, 4), 0.5)
    scores = torch.zeros(1, 4, 4)
    scores[0, 3, 1] = 1
    moved = ThreatModel(8, pixels=1).project(clean + 1, clean, scores) != clean
    assert moved[0, :, 3, 1].all()
    assert moved.sum() == 3


def test_distances_are_those_of_scipy() -> None:
    from scipy.spatial.distance import cdist

    a, b = torch.randn(5, 7, dtype=torch.float64), torch.randn(9, 7, dtype=torch.float64)
    for ours, theirs in (("euclidean", "sqeuclidean"), ("cosine", "cosine")):
        np.testing.assert_allclose(distances(a, b, ours), cdist(a, b, theirs), atol=1e-10)


def test_preprocess_normalises_and_lets_gradients_through() -> None:
    images = torch.rand(2, 3, 10, 6, requires_grad=True)
    same = preprocess(images, (10, 6), (0.5, 0.25, 0.0), (0.5, 1.0, 2.0))
    torch.testing.assert_close(same[:, 0], images[:, 0] * 2 - 1)
    torch.testing.assert_close(same[:, 2], images[:, 2] / 2)
    preprocess(images, (20, 12)).square().sum().backward()
    assert (images.grad != 0).all()
