"""Attacks on several sources at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from reid_attack_bench.attacks.apgd import APGD
from reid_attack_bench.attacks.common.members import over_members
from reid_attack_bench.attacks.common.objectives import misclassification
from reid_attack_bench.attacks.metric import MetricFGSM, MetricPGD
from reid_attack_bench.attacks.pgd import FGSM, PGD
from reid_attack_bench.contracts import (
    Attack,
    Batch,
    Distance,
    Ensemble,
    ReferenceImages,
    ThreatModel,
    Victim,
    WrappedVictim,
    to_uint8,
)
from tests.plugins.toy import ToyVictim

THREAT = ThreatModel(4)
ATTACKS = [FGSM(), PGD(steps=4), PGD(steps=4, objective="cosine"), MetricFGSM(), APGD(("self",), 1, 4, scales=2),
           MetricPGD(steps=4), MetricPGD(steps=3, diversity=0.7, momentum=1.0, scales=2), APGD(steps=4),
           APGD(("self", "dlr", "cross_entropy", "smooth_ap"), restarts=4, steps=4)]  # fmt: skip


class Scaled(WrappedVictim):
    """Embeddings a thousand times as large, and logits `times` as large."""

    times = 1.0

    def embed(self, images):
        return 1000.0 * self.victim.embed(images)

    def logits(self, images):
        return self.times * self.victim.logits(images)


def toy(seed: int) -> Victim:
    return ToyVictim(seed=seed).eval().requires_grad_(False)


def images(count: int = 6) -> torch.Tensor:
    drawn = torch.rand(count, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    return torch.round(255 * drawn) / 255


def crafted(attack: Attack, source: Victim, clean: torch.Tensor) -> torch.Tensor:
    references = None
    if "gallery" in attack.needs:
        shown = to_uint8(clean.roll(1, dims=3))
        references = ReferenceImages(shown, np.arange(len(shown)), np.zeros(len(shown), np.int64))
    return attack.craft(source, Batch(clean, None, references), THREAT, torch.Generator().manual_seed(1))


def similarity(victim: Victim, attacked: torch.Tensor, clean: torch.Tensor) -> float:
    with torch.no_grad():
        return float(functional.cosine_similarity(victim.embed(attacked), victim.embed(clean)).mean())


def test_it_lowers_the_similarity_of_both_members_more_evenly_than_one_source() -> None:
    clean, first, second = images(), toy(1), toy(2)
    left = {
        name: [similarity(victim, crafted(MetricPGD(steps=20), source, clean), clean) for victim in (first, second)]
        for name, source in (("first", first), ("second", second), ("both", Ensemble([first, second])))
    }
    noise = [
        similarity(victim, clean + 4 / 255 * torch.rand_like(clean).sub(0.5).sign(), clean)
        for victim in (first, second)
    ]
    assert max(left["both"]) < min(noise)
    assert max(left["both"]) < min(max(left["first"]), max(left["second"]))
    gap = {name: abs(one - other) for name, (one, other) in left.items()}
    assert gap["both"] < min(gap["first"], gap["second"])


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("attack", [MetricFGSM(), MetricPGD(steps=4)], ids=str)
def test_a_member_with_large_embeddings_does_not_dominate(attack: Attack, distance: Distance) -> None:
    clean, first, second = images(), toy(1), toy(2)
    first.distance = second.distance = distance
    plain, scaled = (crafted(attack, Ensemble([first, other]), clean) for other in (second, Scaled(second)))
    same = (to_uint8(plain) == to_uint8(scaled)).mean()
    assert same > 0.99, "up to rounding"


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_it_is_repeatable_within_budget_and_batch_independent(attack: Attack) -> None:
    clean, members = images(), [toy(1), toy(2)]
    source = Ensemble(members)
    first = crafted(attack, source, clean)
    assert torch.equal(first, crafted(attack, source, clean))
    assert float((first - clean).abs().max()) <= THREAT.radius + 1e-6
    assert not torch.equal(first, clean)
    members[1].max_batch = 2
    chunked = crafted(attack, Ensemble(members), clean)
    assert float((to_uint8(chunked) == to_uint8(first)).mean()) > 0.99, "up to rounding"


def test_objectives_are_scaled_by_their_values_at_the_start() -> None:
    clean, first, second = images(), toy(1), toy(2)

    def build(member: Victim):
        return lambda x: member.embed(x).square().sum(dim=1)

    objective = over_members(build, Ensemble([first, Scaled(second)]))
    start = objective(clean)
    torch.testing.assert_close(start, torch.ones(len(clean)))
    moved = (clean + 0.05).clamp(0, 1)
    expected = (build(first)(moved) / build(first)(clean) + build(second)(moved) / build(second)(clean)) / 2
    torch.testing.assert_close(objective(moved), expected)
    assert torch.equal(over_members(build, first)(clean), build(first)(clean)), "one source is left as it is"


def test_an_objective_that_starts_at_zero_is_not_scaled_up() -> None:
    clean = images(2)
    values = iter([torch.zeros(2), torch.tensor([3.0, 4.0])])
    objective = over_members(lambda member: lambda x: next(values), Ensemble([toy(1)]), floor=2.0)
    assert objective(clean).tolist() == [0.0, 0.0]
    assert objective(clean).tolist() == [1.5, 2.0]


def test_logits_are_those_of_each_member() -> None:
    clean, first, second = images(), toy(1), toy(2)
    sure = Scaled(second)
    sure.times = 1000.0  # its cross entropy starts at 0
    objective = misclassification(Ensemble([first, sure]), clean, from_clean=True)
    with torch.no_grad():
        start = objective(clean)
        alone = [misclassification(member, clean, from_clean=True)(clean) for member in (first, sure)]
    assert float(alone[1].min()) < 1e-6
    torch.testing.assert_close(start, sum(each / each.clamp_min(1.0) for each in alone) / 2)
