"""Victims that deceive are found out, and honest ones are left alone."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from reid_attack_bench.checks.check import check
from reid_attack_bench.checks.differences import Differences
from reid_attack_bench.checks.gradients import gradient
from reid_attack_bench.checks.losses import gradient_of, points
from reid_attack_bench.checks.result import CheckResult
from reid_attack_bench.checks.subject import Subject
from reid_attack_bench.contracts import Defence, Victim, preprocess, to_float
from reid_attack_bench.victims.defences.input_defences import Jpeg, RandomResizePad
from tests.checks.test_checks import DATA
from tests.plugins import deceptive
from tests.plugins.toy import ToyVictim
from tests.plugins.unseeded import Unseeded

WEIGHTS = Path(__file__).parents[3] / "shared" / "weights" / "osnet_x0_25_msmt17.safetensors"


def checked(victim: Victim, batch_size: int = 32) -> dict[str, CheckResult]:
    """Name → the worst result of that name."""
    torch.manual_seed(0)
    images = DATA.images, DATA.identities, DATA.cameras
    found = check(victim, *images, batch_size=batch_size, timed=False)
    order = ("ok", "note", "fault")
    return {each.name: each for each in sorted(found, key=lambda result: order.index(result.level))}


def faults(found: dict[str, CheckResult]) -> dict[str, str]:
    return {name: result.evidence for name, result in found.items() if result.level == "fault"}


@pytest.mark.parametrize(
    ("name", "check_name"),
    [
        ("WrongInLargeBatches", "batch size"),
        ("WrongInLargeBatches", "gradient"),
        ("WrongInSmallBatches", "batch size"),
        ("WrongAfterAWhile", "hidden state"),
        ("WrongOffTheGrid", "gradient"),
        ("WrongFarFromCleanImages", "gradient"),
        ("OtherWithoutGradients", "batch size"),
        ("OtherInInference", "batch size"),
        ("Remembers", "hidden state"),
        ("Remembers", "gradient"),
        ("Drifts", "hidden state"),
        ("OwnGenerator", "determinism"),
        ("NoiseOfNumpy", "determinism"),
        ("Reseeds", "random numbers"),
        ("OwnGenerator", "random numbers"),
        ("NoiseByContent", "gradient"),
        ("WrongStraightThrough", "gradient"),
        ("HidesBehindPurify", "adaptive gradient"),
        ("Saturated", "gradient"),
        ("OverflowingLogits", "logits"),
        ("OneClass", "logits"),
        ("ConstantLogits", "logits"),
        ("RefusesMost", "rejects"),
        ("LeadsAstray", "rejects"),
    ],
)
def test_a_deception_is_a_fault(name: str, check_name: str) -> None:
    found = _of(name)
    assert check_name in faults(found), found
    assert all(result.advice for result in found.values() if result.level == "fault")


def test_draws_that_no_seed_repeats_are_a_fault() -> None:
    found = checked(Unseeded())
    assert found["determinism"].level == "ok", "it is declared"
    assert "two passes from the same seeds differ by" in faults(found)["random numbers"]
    found = checked(RandomResizePad().defend(ToyVictim().eval()))
    assert found["random numbers"].evidence == "embed does not seed the global generators, and its draws follow them"


@functools.cache
def _of(name: str) -> dict[str, CheckResult]:
    return checked(getattr(deceptive, name)())


def test_the_batch_size_of_the_attacks_is_that_of_the_check() -> None:
    assert "batch size" not in faults(checked(deceptive.WrongInLargeBatches(), batch_size=8))


@pytest.mark.parametrize("name", ["Winners", "InstanceNorm", "MaxPooled", "Attends", "NoisyFeatures", "FairQuantiser"])
def test_an_honest_victim_has_no_fault(name: str) -> None:
    found = checked(getattr(deceptive, name)())
    assert faults(found) == {}
    if name not in ("Winners", "FairQuantiser"):
        assert {found[each].level for each in ("gradient", "logits")} == {"ok"}


def test_adversarial_training_has_no_fault() -> None:
    found = checked(deceptive.robust(to_float(DATA.images), torch.from_numpy(DATA.identities)))
    assert {found[each].level for each in ("gradient", "logits", "batch size", "hidden state")} == {"ok"}


def test_a_quantiser_that_is_fair_is_a_note() -> None:
    gradient = checked(deceptive.FairQuantiser())["gradient"]
    assert gradient.level == "note"
    assert "is an ascent direction" in gradient.evidence


@pytest.mark.parametrize("defence", [Jpeg(), RandomResizePad()])
def test_a_defence_is_attacked_through_its_approximation(defence: Defence) -> None:
    found = checked(defence.defend(ToyVictim()))
    assert faults(found) == {}
    assert found["adaptive gradient"].level == "ok"


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="the weights of a real network are not here")
@pytest.mark.e2e
def test_a_real_network_agrees_with_finite_differences() -> None:
    from safetensors.torch import load_file

    from reid_attack_bench.torchreid_import import torchreid_module

    class Real(Victim):
        input_size = (256, 128)

        def __init__(self) -> None:
            super().__init__()
            self.network = torchreid_module("models.osnet").osnet_x0_25(1000, pretrained=False)
            self.network.load_state_dict(load_file(WEIGHTS), strict=False)

        def embed(self, images: torch.Tensor) -> torch.Tensor:
            return self.network(preprocess(images, self.input_size))

    victim = Real().eval().requires_grad_(False)
    subject = Subject(victim, to_float(DATA.images[:16]), DATA.identities[:16], DATA.cameras[:16], 8)
    (observed,) = gradient(subject)
    assert observed[0] != "fault"
    for point in points(subject):
        found, differences = gradient_of(victim, point), Differences(subject)
        assert found is not None
        assert differences.error(point, found, differences.double(point))[0] < 0.03
