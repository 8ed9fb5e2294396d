"""Steps fit and craft: what they are handed, what decides their results, and that runs are repeatable."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from safetensors.torch import load_file

from reid_attack_bench.attacks.noise import Noise
from reid_attack_bench.attacks.pgd import PGD
from reid_attack_bench.contracts import Attack, ReferenceImages, ThreatModel
from reid_attack_bench.errors import AccessError, BudgetError
from reid_attack_bench.steps.artefacts import read_crafted
from reid_attack_bench.steps.craft import craft_step
from reid_attack_bench.steps.fit import fit_step
from tests.plugins.toy import Asker, Cheat, Learner
from tests.steps.conftest import attacked, toy

SEEN: list = []


@dataclass(frozen=True)
class Nosy(Attack):
    """Asks for everything and remembers what it is given."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradients", "labels", "gallery"})

    def craft(self, source, batch, threat, generator, state=None):
        SEEN.append((source, batch, threat))
        return batch.images


def test_a_fit_sees_the_budget_alone_and_is_read_by_its_craft(lab, data) -> None:
    run = attacked(Learner(), ThreatModel(8, perturbs="gallery", access="white-box"))
    fit = fit_step(run, [toy()], data, ("gate",))
    assert fit.label == "fit learner 8/255 against toy0"
    assert (fit.config["threat"], fit.after, fit.work) == ({"epsilon": 8}, ("gate",), 1000.0)
    assert set(load_file(lab.run(fit) / "state.safetensors")) == {"noise"}
    craft = craft_step(run, [toy()], data, fit, {}, 5, ("gate",))
    assert set(craft.parents) == {"data", "source", "fit"}
    assert craft.config["threat"] == {"epsilon": 8, "perturbs": "gallery"}
    assert set(read_crafted(lab.run(craft))) == {"gallery"}


def test_an_attack_is_handed_what_it_needs_and_no_more(lab, data) -> None:
    SEEN.clear()
    lab.run(craft_step(attacked(Nosy(), ThreatModel(perturbs="both")), [toy()], data, None, {}, 5, ()))
    assert [len(batch.images) for _, batch, _ in SEEN] == [4, 5, 5, 2]
    splits = lab.workspace.splits(data.key)
    for (_, batch, _), other in zip(SEEN, ("gallery", "query", "query", "query"), strict=True):
        assert isinstance(batch.references, ReferenceImages)
        assert np.array_equal(batch.references.images, splits[other].images)
        assert batch.identities is not None
    source = SEEN[0][0]
    assert lab.workspace.victim(toy().key) in set(source.modules())
    with pytest.raises(AccessError, match="Nosy asks for logits, which it does not declare"):
        source.logits(SEEN[0][1].images)


def test_the_cost_of_a_craft_is_counted(lab, data) -> None:
    pgd = craft_step(attacked(PGD(steps=3)), [toy()], data, None, {}, 3, ())
    lab.run(pgd)
    # random start: one pass for the clean class, then forward and backward in each step
    assert lab.facts[pgd.key] == {"forward_passes": 4.0, "backward_passes": 3.0, "queries": 0.0}
    adapted = craft_step(attacked(PGD(steps=3), adaptive=8), [toy()], data, None, {}, 3, ())
    lab.run(adapted)
    assert lab.facts[adapted.key]["backward_passes"] == 3.0, "a deterministic source is drawn from once"
    noise = craft_step(attacked(Noise()), [toy()], data, None, {}, 3, ())
    lab.run(noise)
    assert lab.facts[noise.key] == {}


@pytest.mark.parametrize("form", ["embedding", "distances", "ranking"])
def test_an_attack_that_asks(lab, data, form) -> None:
    threat = ThreatModel(16, sees=form, queries=6, top=3)
    step = craft_step(attacked(Asker(form), threat), [toy()], data, None, {}, 3, ())
    assert step.config["threat"] == {"epsilon": 16, "sees": form, "queries": 6, "top": 3}
    images = read_crafted(lab.run(step))["query"].astype(int)
    assert 0 < np.abs(images - lab.workspace.splits(data.key)["query"].images).max() <= 16
    assert lab.facts[step.key] == {"forward_passes": 6.0, "backward_passes": 0.0, "queries": 6.0}
    with pytest.raises(AccessError, match="attack Asker passed its budget of 5 queries on image 0 of the batch"):
        lab.run(craft_step(attacked(Asker(form, greed=1), replace(threat, queries=5)), [toy()], data, None, {}, 3, ()))
    with pytest.raises(AccessError, match='correct, which takes "labels" in its needs'):
        lab.run(
            craft_step(attacked(Asker(form, labels=True), replace(threat, queries=4)), [toy()], data, None, {}, 4, ())
        )


def test_an_attack_without_needs_is_crafted_once_for_all_sources(lab, data) -> None:
    crafts = [
        craft_step(attacked(Noise()), [toy(seed)], data, None, {"compile": True}, 5, ("gate",)) for seed in (0, 1)
    ]
    assert crafts[0].key == crafts[1].key
    assert crafts[0].label == "craft noise 8/255, plaza"
    assert set(crafts[0].parents) == {"data"}
    assert crafts[0].after == ()
    assert crafts[0].implementation == {"code": "v1", "batch_size": 5}


def test_images_are_within_budget_and_the_same_again(lab, data, tmp_path) -> None:
    step = craft_step(attacked(PGD(steps=2)), [toy()], data, None, {}, 3, ())
    assert step.work == 4 * 3.0 * 2
    images = read_crafted(lab.run(step))["query"].astype(int)
    assert 0 < np.abs(images - lab.workspace.splits(data.key)["query"].images).max() <= 8
    (tmp_path / "again").mkdir()
    again = type(lab)(tmp_path / "again")
    assert np.array_equal(images, read_crafted(again.run(step))["query"])
    with pytest.raises(BudgetError, match="Cheat"):
        lab.run(craft_step(attacked(Cheat()), [toy()], data, None, {}, 3, ()))


def test_adaptation_is_part_of_what_is_asked(data) -> None:
    plain, adaptive = (craft_step(attacked(PGD(), adaptive=n), [toy()], data, None, {}, 3, ()) for n in (0, 8))
    assert adaptive.config["adaptive"] == 8
    assert "adaptation" in adaptive.implementation
    assert plain.seed != adaptive.seed
    without = craft_step(attacked(Noise(), adaptive=8), [toy()], data, None, {}, 3, ())
    assert without.key == craft_step(attacked(Noise()), [toy()], data, None, {}, 3, ()).key, "there is nothing to adapt"


def test_labels_of_attack_runs() -> None:
    run = attacked(PGD(), ThreatModel(4, pixels=50))
    assert run.label == "pgd 4/255 k50"
    assert replace(run, with_seed=True, seed=2).label == "pgd 4/255 k50 seed 2"


def test_steps_count_only_for_an_iterative_attack_of_a_family() -> None:
    @dataclass(frozen=True)
    class Elsewhere(Nosy):
        steps: int = 500  # of something else

    assert attacked(PGD(steps=7)).iterations == 7
    assert attacked(Noise()).iterations == 1
    assert attacked(Elsewhere()).iterations == 1
    assert attacked(Learner()).iterations == 1
