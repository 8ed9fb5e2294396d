"""Training of Deep Mis-Ranking: held-out identities, the history, early stop, and going on after an interruption."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from reid_attack_bench.attacks.misranking import training
from reid_attack_bench.attacks.misranking.networks import Networks, fresh_networks
from reid_attack_bench.attacks.misranking.training import LOSS_COLUMNS, VALIDATION_COLUMNS
from reid_attack_bench.attacks.misranking.validation_set import IdentitySplit, ValidationSet, split_identities
from reid_attack_bench.contracts import Batch, FitContext, State, ThreatModel, TrainingData, Victim
from reid_attack_bench.errors import BenchError
from tests.attacks.test_misranking import CPU, TINY, ToyVictim, changed, fit, seeded

pytestmark = pytest.mark.e2e

HELD = changed(TINY, held_out=0.4, check_every=2, batch_identities=2, steps=7)


def people(count: int = 12, per_camera: int = 2, cameras: int = 2) -> TrainingData:
    """Noise images of `count` identities; the cameras of each in order."""
    rng = np.random.default_rng(0)
    identities = np.repeat(np.arange(count), per_camera * cameras)
    images = rng.integers(0, 256, (len(identities), 32, 16, 3), dtype=np.uint8)
    return TrainingData("toy", images, identities, np.tile(np.repeat(np.arange(cameras), per_camera), count))


@dataclass
class Memory:
    """A checkpoint that goes through the format of the harness, and an interruption after some saves."""

    interrupt_after: int = 0
    kept: bytes | None = None
    saves: int = 0
    loads: list[bool] = field(default_factory=list)

    def load(self) -> State | None:
        self.loads.append(self.kept is not None)
        return None if self.kept is None else load(self.kept)

    def save(self, state: State) -> None:
        self.kept = save(state)
        self.saves += 1
        if self.saves == self.interrupt_after:
            raise KeyboardInterrupt


def context(checkpoint: Memory | None = None, seed: int = 0) -> FitContext:
    return FitContext(CPU, seeded(seed), checkpoint=checkpoint)


class Jittery(ToyVictim):
    """A randomised victim: it draws from the global generator."""

    randomised = True

    def embed(self, images: Tensor) -> Tensor:
        return super().embed(images + 0.01 * torch.randn(images.shape))


# held-out identities


@pytest.mark.parametrize(("count", "share", "expected"), [(12, 0.1, 4), (12, 0.5, 6), (60, 0.1, 6)])
def test_identities_are_held_out_whole(count: int, share: float, expected: int) -> None:
    data = people(count)
    parts = split_identities(data, share, 2, seeded())
    assert sorted([*parts.train, *parts.validation]) == list(range(len(data.identities)))
    held, left = set(data.identities[parts.validation]), set(data.identities[parts.train])
    assert len(held) == expected
    assert not held & left
    assert (parts.cameras == data.cameras[parts.validation]).all()
    assert held != set(data.identities[split_identities(data, share, 2, seeded(1)).validation])


def test_nothing_held_out_draws_nothing() -> None:
    generator = seeded()
    before = generator.get_state()
    parts = split_identities(people(), 0, 2, generator)
    assert torch.equal(generator.get_state(), before)
    assert parts.train.tolist() == list(range(48))
    assert len(parts.validation) == 0


def test_one_camera_ranks_against_the_other_images() -> None:
    data = people(per_camera=4, cameras=1)
    parts = split_identities(data, 0.4, 2, seeded())
    assert len(set(parts.cameras)) == len(parts.validation)  # only the query itself is junk
    lone = replace_identity(people(), 0, images=1)
    for seed in range(20):
        assert 0 not in lone.identities[split_identities(lone, 0.4, 2, seeded(seed)).validation]


def replace_identity(data: TrainingData, identity: int, images: int) -> TrainingData:
    """The same with that many images of one identity."""
    kept = np.flatnonzero((data.identities != identity) | (np.cumsum(data.identities == identity) <= images))
    return TrainingData(data.name, data.images[kept], data.identities[kept], data.cameras[kept])


@pytest.mark.parametrize(("count", "share"), [(4, 0.1), (5, 0.1), (12, 1.0)])
def test_too_few_identities_are_named(count: int, share: float) -> None:
    with pytest.raises(BenchError, match=f"toy has {count} training identities, too few .* set held_out to 0"):
        split_identities(people(count), share, 2, seeded())


def test_queries_are_ranked_across_cameras() -> None:
    """Against a ranking by hand, in plain loops."""
    data, source = people(), ToyVictim()
    parts = split_identities(data, 0.4, 2, seeded())
    ranked = ValidationSet.of(parts, data, source, CPU)
    identities, cameras = data.identities[parts.validation], data.cameras[parts.validation]
    assert sorted(identities[ranked.rows]) == sorted(2 * list(set(identities)))
    assert sorted(cameras[ranked.rows]) == len(set(identities)) * [0] + len(set(identities)) * [1]
    images = torch.from_numpy(data.images[parts.validation]).permute(0, 3, 1, 2) / 255
    features = source.embed(images)
    hits, precisions = [], []
    for row in ranked.rows:
        order = sorted(range(len(features)), key=lambda j, r=row: float((features[r] - features[j]).square().sum()))
        order = [j for j in order if identities[j] != identities[row] or cameras[j] != cameras[row]]
        right = [place for place, j in enumerate(order) if identities[j] == identities[row]]
        hits.append(right[0] == 0)
        precisions.append(np.mean([(n + 1) / (place + 1) for n, place in enumerate(right)]))
    assert ranked.clean() == pytest.approx((100 * np.mean(hits), 100 * np.mean(precisions)))


def test_training_never_sees_who_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    data, seen = people(12), []
    batch = TrainingData.batch

    def spy(self: TrainingData, indices: np.ndarray, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        seen.extend(self.identities[indices])
        return batch(self, indices, device)

    chosen: list[np.ndarray] = []

    def note(*arguments: object) -> IdentitySplit:
        parts = split_identities(*arguments)  # type: ignore[arg-type]
        chosen.append(data.identities[parts.validation])
        return parts

    monkeypatch.setattr(TrainingData, "batch", spy)
    monkeypatch.setattr(training, "split_identities", note)
    HELD.fit(ToyVictim(12), data, ThreatModel(16), context())
    assert len(set(chosen[0])) == 5
    assert set(seen) == set(range(12)) - set(chosen[0])


# history and the best checkpoint


def test_the_history_says_what_happened() -> None:
    notes: list[str] = []
    made = FitContext(CPU, seeded(), lambda done, total, note: notes.append(note))
    state = HELD.fit(ToyVictim(12), people(), ThreatModel(16), made)
    losses, checks = state["history.losses"], state["history.held_out"]
    assert losses.shape == (7, len(LOSS_COLUMNS))
    assert checks.shape[1] == len(VALIDATION_COLUMNS)
    assert losses[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert checks[:, 0].tolist() == [0, 2, 4, 6, 7]  # the clean images, every second step, the last
    torch.testing.assert_close(losses[:, 1], losses[:, 2:6].sum(dim=1), rtol=1e-5, atol=0)
    assert (losses[:, 2:7] > 0).all()
    for row, note in zip(losses.tolist(), notes, strict=True):
        assert f"loss {row[1]:.3g} (mis-ranking {row[2]:.3g}, misclassification {row[3]:.3g}" in note
        assert f"noise up to {row[7]:.1f}/255" in note
    assert f"held out Rank-1 {checks[1, 1]:.1f} mAP {checks[1, 2]:.1f}" in notes[1]
    assert "held out" not in notes[0]
    assert ((checks[:, 1:] >= 0) & (checks[:, 1:] <= 100)).all()


def test_without_held_out_identities_the_last_weights_are_returned() -> None:
    state = fit(changed(TINY, gan_weight=0.0, perception="none"), ThreatModel(16))
    assert state["history.held_out"].shape == (0, 3)
    assert state["history.losses"][:, 4:7].abs().max() == 0  # terms without weight
    assert fit(TINY, ThreatModel(0))["history.losses"].shape == (0, len(LOSS_COLUMNS))


@pytest.mark.parametrize("pixels", [None, 60])
def test_checks_change_nothing_but_the_choice(pixels: int | None) -> None:
    """Checks draw no number and leave no trace: with one at the end only, training is the same."""
    data, threat = people(), ThreatModel(16, pixels)
    often, once = (changed(HELD, check_every=n).fit(ToyVictim(12), data, threat, context()) for n in (1, 100))
    assert torch.equal(often["history.losses"], once["history.losses"])
    assert often["history.held_out"].shape[0] == 8
    assert torch.equal(often["history.held_out"][[0, -1]], once["history.held_out"])


def scripted(monkeypatch: pytest.MonkeyPatch, precisions: list[float]) -> list[State]:
    """Held-out mAPs as given, one check after another; returns the generator's weights at each."""
    weights: list[State] = []

    def attacked(self: ValidationSet, networks: Networks, source: Victim, threat: ThreatModel) -> tuple[float, float]:
        weights.append({name: tensor.clone() for name, tensor in networks.kept.state_dict().items()})
        return 50.0, precisions[len(weights) - 1]

    monkeypatch.setattr(ValidationSet, "attacked", attacked)
    return weights


@pytest.mark.parametrize(("precisions", "best"), [([50, 30, 40, 60], 1), ([50, 30, 30, 60], 2), ([9, 8, 7, 6], 3)])
def test_the_best_weights_are_returned(precisions: list[float], best: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = scripted(monkeypatch, precisions)
    state = changed(HELD, check_every=1, steps=4).fit(ToyVictim(12), people(), ThreatModel(16, 60), context())
    assert len(weights) == 4
    for name, tensor in weights[best].items():
        assert torch.equal(state[name], tensor), name
    assert not all(torch.equal(state[name], tensor) for name, tensor in weights[best - 1].items())


@pytest.mark.parametrize(("patience", "steps"), [(0, 9), (1, 3), (2, 7), (3, 8), (8, 9)])
def test_training_stops_when_nothing_gets_better(patience: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [50, 40, 45, 30, 30, 31, 32, 33, 34])
    config = changed(HELD, check_every=1, steps=9, patience=patience)
    state = config.fit(ToyVictim(12), people(), ThreatModel(16), context())
    assert len(state["history.losses"]) == steps


def test_the_figure_is_that_of_the_crafted_images() -> None:
    """The last row is what `craft` and a ranking of its 8-bit images give."""
    data, source, threat = people(), ToyVictim(12), ThreatModel(16, 60)
    config = changed(HELD, check_every=100)
    made = context()
    state = config.fit(source, data, threat, made)
    generator = seeded()
    fresh_networks(config, threat, generator, CPU)
    ranked = ValidationSet.of(split_identities(data, config.held_out, 2, generator), data, source, CPU)
    crafted = config.craft(source, Batch(ranked.images), threat, seeded(), state)
    expected = ranked.ranked(source.embed(crafted))
    assert state["history.held_out"][-1, 1:].tolist() == pytest.approx(expected)


# going on after an interruption


@pytest.mark.parametrize(
    ("fields", "pixels", "after"),
    [
        ({}, None, 1),  # before the first check
        ({"decay": 0.5, "precision": "bfloat16"}, None, 5),
        ({"pixel_schedule": "annealed"}, 60, 3),
        ({"held_out": 0.0, "gan_weight": 0.0}, 60, 2),
        ({"variant": "released"}, 60, 4),
    ],
)
def test_a_resumed_fit_gives_the_same_bits(
    fields: dict[str, object], pixels: int | None, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    config, threat, data = changed(HELD, **fields), ThreatModel(16, pixels), people()

    def run(memory: Memory | None) -> State:
        torch.manual_seed(0)
        return config.fit(Jittery(12), data, threat, context(memory))

    whole, memory = run(None), Memory(interrupt_after=after)
    with pytest.raises(KeyboardInterrupt):
        run(memory)
    resumed = run(memory)
    assert memory.loads == [False, True]
    assert memory.saves == config.steps - 1  # none is taken twice, and none after the last step
    assert whole.keys() == resumed.keys()
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name
        assert whole[name].dtype == resumed[name].dtype


def test_a_checkpoint_of_another_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    memory, data, threat = Memory(interrupt_after=2), people(), ThreatModel(16)
    with pytest.raises(KeyboardInterrupt):
        HELD.fit(ToyVictim(12), data, threat, context(memory))
    for config, of, seed in ((HELD, data, 1), (changed(HELD, width=5), data, 0), (HELD, people(13), 0)):
        with pytest.raises(BenchError, match="does not belong to these settings, data and seed: delete it"):
            config.fit(ToyVictim(12), of, threat, context(memory, seed))


def test_checkpoints_are_a_minute_apart() -> None:
    memory = Memory()
    HELD.fit(ToyVictim(12), people(), ThreatModel(16), context(memory))
    assert memory.saves == 0


# settings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"held_out": 1.5}, "held_out must be a number from 0 to 1"),
        ({"check_every": 0}, "check_every must be a whole number of at least 1"),
        ({"patience": -1}, "patience must be a whole number of at least 0"),
        ({"held_out": 0.0, "patience": 2}, "patience requires validation identities: set held_out"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        changed(TINY, **fields)
