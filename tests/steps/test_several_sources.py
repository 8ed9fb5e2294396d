"""Steps fit and craft on several sources at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from reid_attack_bench.adversary.access import Granted
from reid_attack_bench.attacks.metric import MetricPGD
from reid_attack_bench.attacks.noise import Noise
from reid_attack_bench.attacks.pgd import PGD
from reid_attack_bench.contracts import Ensemble, ThreatModel
from reid_attack_bench.errors import AccessError
from reid_attack_bench.steps.artefacts import read_crafted
from reid_attack_bench.steps.craft import craft_step
from reid_attack_bench.steps.fit import fit_step
from reid_attack_bench.steps.passes import Chunked
from reid_attack_bench.steps.step import source_keys
from tests.plugins.toy import Learner, ToyVictim
from tests.steps.conftest import attacked, toy

SEEN: list = []


@dataclass(frozen=True)
class Curious(MetricPGD):
    """Remembers its source; what it asks for first may run out of memory."""

    too_many: int = 99

    def craft(self, source, batch, threat, generator, state=None):
        SEEN.append(source)
        if (source.max_batch or len(batch.images)) >= self.too_many:
            raise torch.cuda.OutOfMemoryError
        return super().craft(source, batch, threat, generator)


def crafted(lab, step) -> np.ndarray:
    return read_crafted(lab.run(step))["query"]


def test_it_sees_each_member_as_its_access_allows_and_pays_for_all(lab, data) -> None:
    SEEN.clear()
    one = craft_step(attacked(Curious(steps=3)), [toy(0)], data, None, {}, 4, ("gate",))
    both = craft_step(attacked(Curious(steps=3)), [toy(0), toy(1)], data, None, {}, 4, ("gate",))
    assert one.key != both.key
    assert source_keys(both) == [toy(0).key, toy(1).key]
    assert both.label == "craft curious 8/255 on toy0+toy1, plaza"
    assert both.work == 2 * one.work
    assert not np.array_equal(crafted(lab, one), crafted(lab, both))
    source = SEEN[-1]
    assert isinstance(source, Ensemble)
    assert all(isinstance(member, Granted) for member in source.members)
    with pytest.raises(AccessError, match="asks for logits"):
        source.members[1].logits(torch.zeros(1, 3, 64, 32))
    for name in ("forward_passes", "backward_passes"):
        assert lab.facts[both.key][name] == 2 * lab.facts[one.key][name] > 0


def test_the_order_of_its_sources_is_part_of_what_is_asked(data) -> None:
    steps = [
        craft_step(attacked(PGD()), order, data, None, {}, 4, ()) for order in ([toy(0), toy(1)], [toy(1), toy(0)])
    ]
    assert steps[0].key != steps[1].key, "a planner gives them in the order of the suite"


def test_an_attack_that_uses_no_source_shares_its_images_with_all(data) -> None:
    one, both = (craft_step(attacked(Noise()), some, data, None, {}, 4, ()) for some in ([toy(0)], [toy(0), toy(1)]))
    assert one.key == both.key


def test_an_adaptive_attack_adapts_to_every_member(lab, data) -> None:
    class Rounded(ToyVictim):
        def purify(self, images):
            return (images * 31).round() / 31

        def embed(self, images):
            return super().embed(self.purify(images))

    SEEN.clear()
    members = [toy(1, Rounded(seed=1)), toy(2)]
    blind, adaptive = (
        craft_step(attacked(Curious(steps=3), adaptive=samples), members, data, None, {}, 4, ()) for samples in (0, 8)
    )
    assert not np.array_equal(crafted(lab, blind), crafted(lab, adaptive))
    assert not SEEN[0].adapted
    assert SEEN[1].adapted


def test_every_member_takes_smaller_batches_where_memory_is_short(lab, data) -> None:
    SEEN.clear()
    whole = craft_step(attacked(Curious(steps=3)), [toy(0), toy(1)], data, None, {}, 4, ())
    short = craft_step(attacked(Curious(steps=3, too_many=3)), [toy(0), toy(1)], data, None, {}, 4, ("other",))
    short = craft_step(attacked(Curious(steps=3, too_many=3)), [toy(1), toy(0)], data, None, {}, 4, ())
    assert np.abs(crafted(lab, whole).astype(int) - crafted(lab, short)).max() <= 16
    source = SEEN[-1]
    assert isinstance(source, Ensemble)
    assert source.max_batch == 2
    assert all(isinstance(member, Chunked) for member in source.members)


def test_a_learned_attack_is_fitted_on_all_at_once(lab, data) -> None:
    fit = fit_step(attacked(Learner(), ThreatModel()), [toy(0), toy(1)], data, ("gate",))
    assert fit.label == "fit learner 8/255 against toy0+toy1"
    assert fit.work == 2000.0
    craft = craft_step(attacked(Learner()), [toy(0), toy(1)], data, fit, {}, 5, ("gate",))
    assert set(craft.parents) == {"data", "source", "source_1", "fit"}
    assert crafted(lab, craft).shape == (4, 64, 32, 3)
    assert lab.facts[fit.key]["forward_passes"] == 2 * 8
