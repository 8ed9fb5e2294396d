"""GAP: its loss against a literal transcription, its budget, and that it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reid_attack_bench.adversary.budget import enforce
from reid_attack_bench.attacks.gap import GAP, gap_loss
from reid_attack_bench.attacks.noise import Noise
from reid_attack_bench.contracts import Batch, FitContext, State, ThreatModel, TrainingData, Victim, to_float
from reid_attack_bench.errors import BenchError
from tests.plugins.toy import ToyVictim

SMALL = GAP(width=4, steps=25, batch=8, learning_rate=2e-3)


def data_of(count: int = 24, height: int = 32, width: int = 16) -> TrainingData:
    """Flat colours with a little texture: what a toy can tell apart."""
    rng = np.random.default_rng(0)
    colours = rng.integers(60, 196, (count, 1, 1, 3))
    images = (colours + rng.integers(-20, 21, (count, height, width, 3))).astype(np.uint8)
    return TrainingData("toys", images, np.arange(count) % 8, np.zeros(count, np.int64))


def fitted(attack: GAP, threat: ThreatModel, victim: Victim, seed: int = 0) -> State:
    torch.manual_seed(seed + 77)  # the global state must not matter
    return attack.fit(victim, data_of(), threat, FitContext(torch.device("cpu"), torch.Generator().manual_seed(seed)))


def random_state(attack: GAP, seed: int) -> State:
    """A generator that no training has touched."""
    return attack.fit(
        ToyVictim(), data_of(), ThreatModel(0), FitContext(torch.device("cpu"), torch.Generator().manual_seed(seed))
    )


@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 8))
@settings(max_examples=20, deadline=None)
def test_loss_is_the_published_formula(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    clean, moved = scale * rng.normal(size=(5, 7)), scale * rng.normal(size=(5, 7))

    def cross_entropy(rows: np.ndarray, classes: list[int]) -> float:
        return sum(
            -math.log(math.exp(row[k]) / sum(math.exp(v) for v in row)) for row, k in zip(rows, classes, strict=True)
        ) / len(rows)

    least = [min(range(7), key=lambda k, row=row: row[k]) for row in clean]
    most = [max(range(7), key=lambda k, row=row: row[k]) for row in clean]
    got = [gap_loss(torch.tensor(moved), torch.tensor(clean), kind).item() for kind in ("least_likely", "untargeted")]
    assert got == pytest.approx([math.log(cross_entropy(moved, least)), -math.log(cross_entropy(moved, most))])


def test_loss_stays_finite_where_a_batch_is_fooled_for_certain() -> None:
    moved = torch.tensor([[200.0, 0.0]], requires_grad=True)
    for clean, kind in (([[0.0, 1.0]], "least_likely"), ([[1.0, 0.0]], "untargeted")):
        loss = gap_loss(moved, torch.tensor(clean), kind)
        assert torch.isfinite(loss)
        assert torch.isfinite(torch.autograd.grad(loss, moved)[0]).all()


@pytest.mark.e2e
@given(
    seed=st.integers(0, 2**31),
    epsilon=st.integers(0, 64),
    pixels=st.one_of(st.none(), st.integers(1, 900)),
    size=st.tuples(st.integers(16, 40), st.integers(16, 30)),
)
@settings(max_examples=12, deadline=None)
def test_budgets_hold_in_8_bits(seed: int, epsilon: int, pixels: int | None, size: tuple[int, int]) -> None:
    attack, threat = GAP(width=2, batch=8), ThreatModel(epsilon, pixels)
    clean = np.random.default_rng(seed).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    crafted = attack.craft(
        ToyVictim(), Batch(to_float(clean)), threat, torch.Generator(), random_state(attack, seed % 1000)
    )
    stored = enforce(crafted, clean, threat, attack="gap")
    changed = bool((stored != clean).any())
    assert changed or epsilon < 16, "an untrained generator's noise may round away in a small budget only"
    assert not (changed and epsilon == 0)


@pytest.mark.e2e
@pytest.mark.parametrize("objective", ["least_likely", "untargeted"])
def test_it_learns_what_noise_does_not_do(objective: str) -> None:
    victim = ToyVictim().eval().requires_grad_(False)
    threat, attack = ThreatModel(16), GAP(**{**vars(SMALL), "objective": objective})
    batch = Batch(to_float(data_of().images))
    known = victim.logits(batch.images)

    def loss(images: Tensor) -> float:
        return gap_loss(victim.logits(images), known, attack.objective).item()

    learnt = attack.craft(victim, batch, threat, torch.Generator(), fitted(attack, threat, victim))
    noise = Noise().craft(victim, batch, threat, torch.Generator().manual_seed(0))
    drop_by_noise = abs(loss(batch.images) - loss(noise))
    assert loss(batch.images) - loss(learnt) > 5 * drop_by_noise > 0


@pytest.mark.e2e
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_fit_is_reproducible_and_leaves_the_victim_alone(precision: str) -> None:
    victim = ToyVictim().eval().requires_grad_(False)
    before = {name: value.clone() for name, value in victim.state_dict().items()}
    attack = GAP(**{**vars(SMALL), "steps": 3, "precision": precision})
    first, second, other = (fitted(attack, ThreatModel(8, 100), victim, seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert all(torch.equal(before[name], value) for name, value in victim.state_dict().items())
    images = to_float(data_of().images)
    together = attack.craft(victim, Batch(images), ThreatModel(8), torch.Generator(), first)
    alone = attack.craft(victim, Batch(images[3:4]), ThreatModel(8), torch.Generator(), first)
    assert torch.equal(together[3:4], alone), "an image's noise must not depend on the images beside it"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"objective": "likely"}, "objective must be one of least_likely"),
        ({"precision": "half"}, "precision must be one of"),
        ({"steps": 0}, "steps must be a whole number of at least 1"),
        ({"batch": 1}, "batch must be"),
        ({"learning_rate": 0}, "learning_rate must be a positive number"),
    ],
)
def test_wrong_settings_are_named(fields: dict, says: str) -> None:
    with pytest.raises(BenchError, match=says):
        GAP(**fields)


def test_what_it_cannot_do_is_said() -> None:
    class Bare(ToyVictim):
        name = "bare"

        def logits(self, images):
            return None

    context = FitContext(torch.device("cpu"), torch.Generator())
    with pytest.raises(BenchError, match="bare has no classifier"):
        SMALL.fit(Bare(), data_of(), ThreatModel(8), context)
    with pytest.raises(BenchError, match="fewer than a batch of 8"):
        SMALL.fit(ToyVictim(), data_of(4), ThreatModel(8), context)
    with pytest.raises(BenchError, match="at least 16×16 pixels, not 32×8"):
        SMALL.fit(ToyVictim(), data_of(width=8), ThreatModel(8), context)
    batch = Batch(to_float(data_of().images))
    with pytest.raises(BenchError, match="call fit"):
        SMALL.craft(ToyVictim(), batch, ThreatModel(8), torch.Generator())
    with pytest.raises(BenchError, match="not of width 4"):
        SMALL.craft(ToyVictim(), batch, ThreatModel(8), torch.Generator(), random_state(GAP(width=2, batch=8), 0))
