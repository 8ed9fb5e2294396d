"""Attacks by the names of papers: each is `metric_pgd` with that paper's values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reid_attack_bench import registry
from reid_attack_bench.attacks.metric import MetricPGD
from reid_attack_bench.contracts import Batch, ReferenceImages, ThreatModel, to_float
from reid_attack_bench.errors import BenchError
from tests.plugins.toy import ToyVictim

CLEAN = np.random.default_rng(0).integers(0, 256, (4, 32, 16, 3), dtype=np.uint8)
PEOPLE = np.arange(4) // 2
GALLERY = ReferenceImages(CLEAN[::-1].copy(), PEOPLE[::-1].copy(), np.zeros(4, np.int64))

ORACLE = {"references": "same_identity", "start": 0, "step_size": 1}
TRANSFER = {"momentum": 1, "diversity": 0.7, "diversity_resize": 0.9, "kernel": 7}

SAME = [
    ("sma", 5, {"steps": 15, "step_size": 1}),
    ("odfa", 5, {"steps": 6, "step_size": 1, "start": 0.1}),
    ("odfa", 8, {"steps": 10, "step_size": 1, "start": 0.1}),
    ("odfa", 16, {"steps": 20, "step_size": 1, "start": 0.1}),
    ("i-fgsm-bai", 5, {"steps": 6, **ORACLE}),
    ("i-fgsm-bai", 2, {"steps": 2, **ORACLE}),
    ("mi-fgsm-bai", 5, {"steps": 6, "momentum": 1, **ORACLE}),
    ("ti-dim", 10, {"steps": 10, "step_size": 1.6, "start": 0.1, **TRANSFER}),
]


def build(name: str, **options) -> MetricPGD:
    return registry.find("attack", name).build(options)


@pytest.mark.parametrize(("name", "epsilon", "options"), SAME, ids=lambda value: str(value)[:20])
def test_a_preset_is_metric_pgd_with_these_values(name: str, epsilon: int, options: dict) -> None:
    def crafted(attack: MetricPGD) -> torch.Tensor:
        known = (torch.from_numpy(PEOPLE), GALLERY) if "labels" in attack.needs else ()
        source, generator = ToyVictim().eval().requires_grad_(False), torch.Generator().manual_seed(0)
        return attack.craft(source, Batch(to_float(CLEAN), *known), ThreatModel(epsilon), generator)

    preset = build(name)
    assert torch.equal(crafted(preset), crafted(MetricPGD(**options)))
    assert preset.steps_within(ThreatModel(epsilon)) == options["steps"]


def test_its_values_can_be_changed_and_mistakes_have_its_name() -> None:
    assert build("odfa", steps=3).steps_within(ThreatModel(16)) == 3
    assert build("odfa").steps_within(ThreatModel(0)) == 1
    for name in ("sma", "odfa", "i-fgsm-bai", "mi-fgsm-bai", "fna", "ti-dim"):
        assert registry.find("attack", name).code == "v1"
        with pytest.raises(BenchError, match=f"{name}: nesterov looks ahead"):
            build(name, nesterov=True, momentum=0)


def test_the_audit_is_told_the_steps_of_the_budget() -> None:
    from tests.steps.conftest import attacked

    assert attacked(build("odfa"), threat=ThreatModel(16)).iterations == 20


def test_fna_sums_its_guides_and_goes_to_the_farthest_identity() -> None:
    """Its objective against a literal loop."""
    source, people = ToyVictim().eval().requires_grad_(False), np.array([0, 0, 7, 8])
    batch = Batch(to_float(CLEAN), torch.tensor([0, 7, 8, 9]), ReferenceImages(CLEAN, people, np.zeros(4, np.int64)))
    objective, _ = build("fna").objective_on(source, batch)
    moved = (to_float(CLEAN) + 0.05).clamp(0, 1)
    guides, own, now = (source.embed(images) for images in (to_float(CLEAN), to_float(CLEAN), moved))

    def apart(one: torch.Tensor, other: torch.Tensor) -> float:
        return 1 - torch.cosine_similarity(one, other, dim=0).item()

    got = objective(moved)
    for image, person in enumerate((0, 7, 8, 9)):
        means = [guides[people == other].mean(dim=0) for other in (0, 7, 8) if other != person]
        farthest = max(means, key=lambda mean: apart(own[image], mean))
        same = [guides[i] for i in range(4) if people[i] == person] or [own[image]]
        expected = sum(apart(now[image], each) for each in same) - apart(now[image], farthest)
        assert got[image].item() == pytest.approx(expected, abs=1e-5)
    with pytest.raises(BenchError, match="fna: references self leaves out other people"):
        build("fna", references="self")
