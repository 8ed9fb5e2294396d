"""MUAP: its histogram AP and schedule as defined, what it fits, and that an interrupted fit resumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reid_attack_bench.adversary.budget import enforce
from reid_attack_bench.attacks import muap
from reid_attack_bench.attacks.muap import MUAP, histogram_ap, total_variation
from reid_attack_bench.contracts import Batch, FitContext, ThreatModel, TrainingData, Victim, distances, to_float
from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics.ranking import rank, summary
from tests.plugins.toy import ToyVictim

SMALL = {"batch_identities": 6, "epochs": 4}


def people(count: int, seed: int) -> TrainingData:
    """Four images of each of people of one colour each, near enough for epsilon to confuse them."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(110, 146, (count, 1, 1, 1, 3))
    images = np.clip(colours + rng.integers(-15, 16, (count, 4, 32, 16, 3)), 0, 255).astype(np.uint8)
    return TrainingData(
        "toys", images.reshape(-1, 32, 16, 3), np.repeat(np.arange(count), 4), np.tile(np.arange(4), count)
    )


TRAINING, JUDGED = people(30, 0), people(40, 1)


@pytest.fixture
def source() -> Victim:
    return ToyVictim().eval().requires_grad_(False)


class Kept:
    """A checkpoint in memory."""

    def __init__(self) -> None:
        self.state = None

    def load(self):
        return self.state

    def save(self, state) -> None:
        self.state = {name: value.clone() for name, value in state.items()}


def fitted(attack: MUAP, source: Victim, threat: ThreatModel, kept: Kept | None = None, stop: int = 0) -> dict:
    def progress(done: int, total: int, note: str) -> None:
        if stop and done > stop:
            raise KeyboardInterrupt

    context = FitContext(torch.device("cpu"), torch.Generator().manual_seed(0), progress, kept)
    return attack.fit(source, TRAINING, threat, context)


def left(source: Victim, state: dict, threat: ThreatModel) -> float:
    """mAP of the judged people's first images among the clean others."""
    query = JUDGED.cameras == 0
    clean = to_float(JUDGED.images[query])
    crafted = MUAP().craft(source, Batch(clean), threat, torch.Generator(), state=state)
    enforce(crafted, JUDGED.images[query], threat, attack="muap")
    apart = distances(source.embed(crafted), source.embed(to_float(JUDGED.images[~query])), source.distance)
    ranked = rank(
        apart.numpy(),
        JUDGED.identities[query],
        JUDGED.identities[~query],
        JUDGED.cameras[query],
        JUDGED.cameras[~query],
    )
    return summary(ranked)["mAP"]


def test_histogram_ap_is_that_of_a_literal_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, references = (torch.randn(4, 5, generator=generator) for _ in range(2))
    same = torch.eye(4, dtype=torch.bool)
    same[0, 2] = True
    unit = [values / values.norm(dim=1, keepdim=True) for values in (queries, references)]
    for row, got in enumerate(histogram_ap(queries, references, same, 5)):
        correct, seen, expected = 0.0, 0.0, 0.0
        for centre in (0.0, 0.5, 1.0, 1.5, 2.0):
            shares = [max(0.0, 1 - abs((unit[0][row] - other).norm().item() - centre) / 0.5) for other in unit[1]]
            hits = sum(share for share, match in zip(shares, same[row], strict=True) if match)
            correct, seen = correct + hits, seen + sum(shares)
            expected += (correct / seen if seen else 0.0) * hits / int(same[row].sum())
        assert got.item() == pytest.approx(expected, abs=1e-5)


def test_total_variation_is_that_of_neighbours_in_units_of_the_standard_deviation() -> None:
    images = torch.zeros(2, 3, 4, 6)
    assert total_variation(images + 0.3) == pytest.approx(0, abs=1e-8)
    images[:, 0, 2:] = 0.229
    assert total_variation(images).item() == pytest.approx(2 / 3), "twice the share of steps down that are one unit"


def test_the_fitted_perturbation_lowers_map_far_more_than_random_noise(source) -> None:
    threat = ThreatModel(8)
    clean = left(source, {"perturbation": torch.zeros(3, 32, 16)}, threat)
    noise = [
        torch.rand(3, 32, 16, generator=torch.Generator().manual_seed(seed)).sub(0.5).sign() * threat.radius
        for seed in range(5)
    ]
    random = min(left(source, {"perturbation": each}, threat) for each in noise)
    state = fitted(MUAP(**SMALL), source, threat)
    assert left(source, state, threat) < random - 0.5 * (clean - random) - 2


def test_it_saturates_as_much_as_it_is_to(source) -> None:
    threat = ThreatModel(8)
    for share in (0.5, 0.8):
        values = fitted(MUAP(**SMALL, saturation=share), source, threat)["perturbation"].abs()
        assert values.max() <= threat.radius
        assert (values >= threat.radius - 1e-6).float().mean() > share - 0.02


def test_a_pixel_budget_is_one_set_of_positions(source) -> None:
    for epochs in (1, 3):
        state = fitted(MUAP(batch_identities=6, epochs=epochs), source, ThreatModel(8, pixels=40))
        assert (state["perturbation"].abs().amax(dim=0) > 0).sum() == 40


def test_without_a_budget_nothing_is_fitted(source) -> None:
    assert not fitted(MUAP(**SMALL), source, ThreatModel(0))["perturbation"].any()


def test_large_batches_give_the_gradient_of_whole_ones(source, monkeypatch) -> None:
    whole = fitted(MUAP(**SMALL), source, ThreatModel(8))["perturbation"]
    monkeypatch.setattr(muap, "_CHUNK", 5)
    parts = fitted(MUAP(**SMALL), source, ThreatModel(8))["perturbation"]
    assert ((whole - parts).abs() < 1e-5).float().mean() > 0.99


def test_an_interrupted_fit_ends_as_one_that_was_not(source, monkeypatch) -> None:
    attack, threat = MUAP(**SMALL), ThreatModel(8)
    whole = fitted(attack, source, threat)
    monkeypatch.setattr(muap, "CHECKPOINT_SECONDS", 0.0)
    kept = Kept()
    with pytest.raises(KeyboardInterrupt):
        fitted(attack, source, threat, kept, stop=5)
    assert kept.state is not None
    assert int(kept.state["done"]) == 5
    resumed = fitted(attack, source, threat, kept)
    assert torch.equal(whole["perturbation"], resumed["perturbation"])
    kept.state["random.start"] += 1
    with pytest.raises(BenchError, match="does not belong to this data and seed: delete it"):
        fitted(attack, source, threat, kept)


def test_mistakes_are_named(source) -> None:
    with pytest.raises(BenchError, match="call fit"):
        MUAP().craft(source, Batch(torch.rand(1, 3, 8, 4)), ThreatModel(8), torch.Generator())
    with pytest.raises(BenchError, match="fitted on images of 32×16 pixels and cannot be added to 8×4"):
        MUAP().craft(
            source,
            Batch(torch.rand(1, 3, 8, 4)),
            ThreatModel(8),
            torch.Generator(),
            {"perturbation": torch.zeros(3, 32, 16)},
        )
    with pytest.raises(BenchError, match="muap: bins must be a whole number of at least 2, not 1"):
        MUAP(bins=1)
    one = TrainingData("alone", TRAINING.images[:4], TRAINING.identities[:4], TRAINING.cameras[:4])
    with pytest.raises(BenchError, match="alone has one training identity"):
        MUAP().fit(source, one, ThreatModel(8), FitContext(torch.device("cpu"), torch.Generator()))
