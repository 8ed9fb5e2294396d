"""Detectors that judge result lists, and the adaptive attack that knows them."""

from __future__ import annotations

import pytest
import torch

from reid_attack_bench.adversary.result_list import ListSeen, list_suspicion
from reid_attack_bench.attacks.apgd import APGD
from reid_attack_bench.attacks.metric import MetricPGD
from reid_attack_bench.contracts import ThreatModel, Victim
from reid_attack_bench.errors import AccessError, VictimError
from reid_attack_bench.steps.artefacts import read_crafted
from reid_attack_bench.steps.craft import craft_step
from reid_attack_bench.steps.data import data_step
from reid_attack_bench.steps.step import Step
from tests.plugins.toy import ToyVictim
from tests.steps.conftest import Lab, alike, attacked, toy


class Far(ToyVictim):
    """Refuses queries that are far from the two nearest."""

    list_length = 2

    def suspicion_in_list(self, queries, nearest, distances):
        return distances.mean(dim=1) - 0.2


class Wrong(Far):
    def suspicion_in_list(self, queries, nearest, distances):
        return distances


def test_the_score_moves_with_the_image() -> None:
    victim = Far().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 64, 32, generator=generator).requires_grad_(True)
    gallery = victim.embed(torch.rand(6, 3, 64, 32, generator=generator))
    scores = ListSeen(victim, lambda: gallery).suspicion(images)
    torch.testing.assert_close(scores, list_suspicion(victim, victim.embed(images), gallery))
    (gradient,) = torch.autograd.grad(scores.sum(), images)
    lower = ListSeen(victim, lambda: gallery).suspicion(images - 0.01 * gradient.sign())
    assert (lower < scores).all()


def test_a_gallery_smaller_than_the_list_is_all_of_it() -> None:
    queries = torch.eye(2)
    assert list_suspicion(Far(), queries, queries[:1]).tolist() == pytest.approx([-0.2, 0.8])


def test_scores_of_another_shape_are_named() -> None:
    with pytest.raises(VictimError, match=r"Wrong: suspicion_in_list must return 2 values .* not \(2, 2\)"):
        list_suspicion(Wrong(), torch.eye(2), torch.eye(2))


def crafted(lab: Lab, victim: Step, data: Step, attack: object, adaptive: int) -> torch.Tensor:
    """Scores of the adversarial queries."""
    step = craft_step(attacked(attack, ThreatModel(8), adaptive=adaptive), [victim], data, None, {}, 4, ())
    images = torch.from_numpy(read_crafted(lab.run(step))["query"].copy()).permute(0, 3, 1, 2) / 255
    gallery = torch.from_numpy(lab.workspace.splits(data.key)["gallery"].images.copy()).permute(0, 3, 1, 2) / 255
    model: Victim = lab.workspace.victim(victim.key)
    with torch.no_grad():
        return list_suspicion(model, model.embed(images), model.embed(gallery))


def test_only_an_adaptive_attack_that_sees_the_gallery_evades(lab: Lab) -> None:
    data, victim = data_step(alike(people=4, queries=2)), toy(victim=Far())
    plain = crafted(lab, victim, data, APGD(steps=12), 0)
    adaptive = crafted(lab, victim, data, APGD(steps=12), 1)
    blind = crafted(lab, victim, data, MetricPGD(steps=4, references="self"), 1)
    assert (plain > 0).all()
    assert (blind > 0).all()
    assert (adaptive > 0).float().mean() < 0.5


def test_an_attack_that_is_not_adaptive_does_not_read_the_detector(lab: Lab) -> None:
    class Reads(MetricPGD):
        def craft(self, source, batch, threat, generator):
            embeddings = source.embed(batch.images)
            source.suspicion_in_list(embeddings, embeddings[:, None], embeddings[:, :1])

    data = data_step(alike(people=4, queries=2))
    with pytest.raises(AccessError, match="asks for the detector"):
        crafted(lab, toy(victim=Far()), data, Reads(), 0)
