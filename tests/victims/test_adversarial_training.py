"""Adversarial training: what it leaves under attack, its options, and that an interrupted fit resumes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reid_attack_bench import registry
from reid_attack_bench.attacks.metric import MetricPGD
from reid_attack_bench.contracts import Batch, FitContext, State, ThreatModel, TrainingData, Victim, distances, to_float
from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics.ranking import rank, summary
from reid_attack_bench.victims.defences import fine_tuning
from reid_attack_bench.victims.defences.adversarial_training import AdversarialTraining
from reid_attack_bench.victims.defences.fine_tuning import FineTuning
from tests.attacks.test_misranking_training import Jittery, Memory
from tests.plugins.toy import ToyVictim

LONG = AdversarialTraining(
    steps=60, batch_identities=4, learning_rate=3e-3, batch_norm="updated", shifts=True, consistency=2.0
)
SHORT = replace(LONG, steps=6)


class Normalised(ToyVictim):
    """The toy with batch normalisation, whose statistics at the start are not those of any images."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.body = nn.Sequential(self.body[0], nn.BatchNorm2d(8), *self.body[1:])


def blocks() -> TrainingData:
    """Eight images each of eight patterns of colours, on two cameras."""
    rng = np.random.default_rng(0)
    colours = rng.integers(90, 166, (8, 4, 2, 3)).repeat(16, axis=1).repeat(16, axis=2)
    images = np.clip(colours[np.arange(64) % 8] + rng.integers(-20, 21, (64, 64, 32, 3)), 0, 255).astype(np.uint8)
    return TrainingData("blocks", images, np.arange(64) % 8, np.arange(64) // 8 % 2)


def fitted(
    settings: FineTuning, victim: Victim, memory: Memory | None = None, data: TrainingData | None = None
) -> State:
    torch.manual_seed(0)
    context = FitContext(torch.device("cpu"), torch.Generator().manual_seed(0), checkpoint=memory)
    return settings.fit(victim.eval().requires_grad_(False), data or blocks(), context)


def attacked(victim: Victim, epsilon: int) -> float:
    """mAP left by metric_pgd on the images of camera 0, among those of camera 1."""
    data = blocks()
    query, gallery = (np.flatnonzero(data.cameras == camera) for camera in (0, 1))
    clean = to_float(data.images[query])
    generator = torch.Generator().manual_seed(0)
    found = MetricPGD(steps=10).craft(victim, Batch(clean), ThreatModel(epsilon), generator)
    with torch.no_grad():
        apart = distances(victim.embed(found), victim.embed(to_float(data.images[gallery])), victim.distance)
    ranking = rank(apart.numpy(), *(data.identities[rows] for rows in (query, gallery)),
                   *(data.cameras[rows] for rows in (query, gallery)))  # fmt: skip
    return summary(ranking)["mAP"]


def left(settings: AdversarialTraining, epsilon: int) -> float:
    victim = Normalised()
    defended = settings.defend(victim, fitted(settings, victim)).eval().requires_grad_(False)
    return attacked(defended, epsilon)


@pytest.mark.parametrize("objective", ["metric", "mis-ranking"])
def test_it_leaves_more_under_an_attack_than_the_same_training_without_one(objective) -> None:
    settings = replace(LONG, objective=objective)
    clean = left(replace(settings, epsilon=0), 8)
    assert left(settings, 8) > clean + 10
    assert left(settings, 0) > 90


@pytest.mark.parametrize("objective", ["metric", "mis-ranking"])
def test_options_at_their_defaults_change_nothing(objective) -> None:
    """Sums of the weights after six steps, from before there were options of batch normalisation."""
    expected = {"metric": (34.677582, 67.312666, 32.797977), "mis-ranking": (34.510015, 66.997585, 32.710273)}
    rng = np.random.default_rng(0)
    colours = rng.integers(40, 216, (8, 4, 2, 3)).repeat(16, axis=1).repeat(16, axis=2)
    images = np.clip(colours[np.arange(64) % 8] + rng.integers(-12, 13, (64, 64, 32, 3)), 0, 255).astype(np.uint8)
    data = TrainingData("blocks", images, np.arange(64) % 8, np.zeros(64, np.int64))
    settings = AdversarialTraining(objective, steps=6, batch_identities=4, learning_rate=3e-3)
    state = fitted(settings, ToyVictim(seed=1), data=data)
    sums = [state[f"{layer}.weight"].double().abs().sum() for layer in ("body.0", "body.2", "classifier")]
    assert [float(value) for value in sums] == pytest.approx(expected[objective], abs=2e-3)
    assert not {"batch_norm", "shifts", "consistency"} & registry.configuration(settings).keys()


def test_batch_normalisation_is_frozen_or_follows_the_batches() -> None:
    victim = Normalised()
    before = {name: value.clone() for name, value in victim.state_dict().items()}
    frozen, updated = (fitted(replace(SHORT, batch_norm=how), victim) for how in ("frozen", "updated"))
    for name in ("body.1.running_mean", "body.1.running_var", "body.1.num_batches_tracked"):
        assert torch.equal(frozen[name], before[name])
        assert not torch.equal(updated[name], before[name])
    assert updated["body.1.num_batches_tracked"] == 2 * SHORT.steps  # embeddings and logits; crafting moves nothing
    assert not victim.training
    for name, value in victim.state_dict().items():
        assert torch.equal(value, before[name])


def test_consistency_holds_the_embedding() -> None:
    data = blocks()
    clean = to_float(data.images[:16])

    def moved(settings: AdversarialTraining) -> Tensor:
        defended = settings.defend(ToyVictim(seed=1), fitted(settings, ToyVictim(seed=1))).eval().requires_grad_(False)
        found = MetricPGD(steps=5).craft(defended, Batch(clean), ThreatModel(8), torch.Generator().manual_seed(0))
        return 1 - torch.nn.functional.cosine_similarity(defended.embed(clean), defended.embed(found)).mean()

    assert moved(replace(LONG, consistency=8.0)) < 0.8 * moved(replace(LONG, consistency=0.0))


@pytest.mark.parametrize("victim", [Normalised(), Jittery(8)], ids=["batch-norm", "randomised"])
def test_a_resumed_fit_gives_the_same_bits(victim, monkeypatch) -> None:
    monkeypatch.setattr(fine_tuning, "CHECKPOINT_SECONDS", 0.0)
    whole, memory = fitted(SHORT, victim), Memory(interrupt_after=3)
    with pytest.raises(KeyboardInterrupt):
        fitted(SHORT, victim, memory)
    resumed = fitted(SHORT, victim, memory)
    assert memory.loads == [False, True]
    assert memory.saves == SHORT.steps - 1  # none is taken twice, and none after the last step
    assert whole.keys() == resumed.keys()
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name


def test_a_checkpoint_of_another_fit_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(fine_tuning, "CHECKPOINT_SECONDS", 0.0)
    memory = Memory(interrupt_after=2)
    with pytest.raises(KeyboardInterrupt):
        fitted(SHORT, Normalised(), memory)
    for settings, victim in ((replace(SHORT, batch_identities=5), Normalised()), (SHORT, ToyVictim())):
        with pytest.raises(BenchError, match="does not belong to these settings, data and seed: delete it"):
            fitted(settings, victim, memory)
