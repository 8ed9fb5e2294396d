"""Targets of attacks that impersonate, from their choice to the ranking."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reid_attack_bench.attacks.noise import Noise
from reid_attack_bench.contracts import Attack, ThreatModel
from reid_attack_bench.data.split import Split
from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics import catalogue
from reid_attack_bench.steps.artefacts import read_crafted, read_ranking, read_targets
from reid_attack_bench.steps.craft import craft_step
from reid_attack_bench.steps.embed import clean_step, features_step
from reid_attack_bench.steps.rank import clean_rank_step, rank_step
from reid_attack_bench.steps.step import Step
from reid_attack_bench.steps.targets import choose_targets, possible_targets
from tests.steps.conftest import attacked, people, toy

RANDOM, HARDEST = (ThreatModel(impersonate=kind) for kind in ("random", "hardest"))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Paste(Attack):
    """Becomes the first guide of its target, which takes a budget of 255."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    impersonates: ClassVar[bool] = True

    def craft(self, source, batch, threat, generator):
        guides = batch.targets.guides
        rows = [int(np.flatnonzero(guides.identities == target)[0]) for target in batch.targets.identities]
        images = torch.from_numpy(np.asarray(guides.images[rows])).permute(0, 3, 1, 2).float() / 255
        return threat.project(images, batch.images)


def craft(data: Step, threat: ThreatModel, attack: Attack | None = None, seed: int = 0) -> Step:
    run = replace(attacked(attack or Paste(), threat), seed=seed)
    return craft_step(run, (toy(),), data, None, {}, 3, ())


@st.composite
def sides(draw: st.DrawFn) -> tuple[Split, Split]:
    made = []
    for _ in "qg":
        count = draw(st.integers(1, 12))
        pair = [draw(st.lists(st.integers(0, 4), min_size=count, max_size=count)) for _ in "ic"]
        made.append(Split(np.zeros((count, 1, 1, 3), np.uint8), *(np.array(values) for values in pair)))
    return made[0], made[1]


@given(sides())
def test_possible_targets_are_those_of_the_definition(made: tuple[Split, Split]) -> None:
    query, gallery = made
    identities, possible = possible_targets(query, gallery)
    assert list(identities) == sorted(set(query.identities))
    for row, (own, camera) in enumerate(zip(query.identities, query.cameras, strict=True)):
        for column, target in enumerate(identities):
            others = [
                c for i, c in zip(gallery.identities, gallery.cameras, strict=True) if i == target and c != camera
            ]
            assert possible[row, column] == (target != own and bool(others))


def test_every_attack_has_the_same_random_targets(lab, data) -> None:
    crafts = [craft(data, RANDOM), craft(data, replace(RANDOM, epsilon=2)), craft(data, RANDOM, Noise())]
    chosen = [read_targets(lab.run(step)) for step in crafts]
    assert all((each == chosen[0]).all() for each in chosen)
    assert (chosen[0] != np.arange(4)).all()
    by_seed = [read_targets(lab.run(craft(data, RANDOM, seed=seed))) for seed in range(1, 5)]
    assert any((each != chosen[0]).any() for each in by_seed)
    assert set(read_crafted(lab.run(crafts[0]))) == {"query"}


def test_the_hardest_target_is_the_nearest_by_the_embeddings_of_the_source(lab, data) -> None:
    chosen = read_targets(lab.run(craft(data, HARDEST)))
    images = lab.workspace.splits(data.key)["query"].images
    victim = toy().plugin.eval()
    with torch.no_grad():
        embedded = victim.embed(torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 255)
    similar = torch.nn.functional.cosine_similarity(embedded[:, None], embedded[None], dim=2).fill_diagonal_(-2)
    assert (chosen == similar.argmax(dim=1).numpy()).all()  # a query of each identity


def test_a_query_with_nobody_to_impersonate_is_an_error(data) -> None:
    rng = np.random.default_rng(0)
    query, gallery = people("query", rng), people("gallery", rng)
    same = replace(gallery, cameras=np.zeros_like(gallery.cameras))  # the camera of every query
    with pytest.raises(BenchError, match="plaza: query 0 has nobody to impersonate"):
        choose_targets(craft(data, RANDOM), query, same, lambda: pytest.fail("not needed"))


def test_targets_are_ranked_under_attack(lab, data) -> None:
    clean = clean_step(toy(), data, {}, ())

    def facts(threat: ThreatModel) -> dict:
        made = craft(data, threat)
        step = rank_step(features_step(made, toy(), data, {}, ()), clean, toy(), data)
        assert ("craft" in step.parents) == bool(threat.impersonate)
        lab.run(step)
        return lab.facts[step.key]

    pasted, held = facts(replace(RANDOM, epsilon=255)), facts(replace(RANDOM, epsilon=0))
    assert set(catalogue.targeted_columns()) <= set(pasted)
    assert held["target_rank1"] == held["clean_target_rank1"] == pasted["clean_target_rank1"]
    assert held["asr1"] == 0
    # a query that is the image of its target retrieves what that image retrieves for its own identity
    own = read_ranking(lab.run(clean_rank_step(clean, toy(), data, 0.0)))
    targets = read_targets(lab.run(craft(data, RANDOM)))
    assert pasted["target_rank1"] == 100 * own.hits[targets, 0].mean()
    assert pasted["target_mAP"] == pytest.approx(100 * own.ap[targets].mean())


def test_an_attack_that_hides_ranks_as_before(data) -> None:
    made = craft_step(attacked(Noise(), ThreatModel()), (toy(),), data, None, {}, 3, ())
    step = rank_step(features_step(made, toy(), data, {}, ()), clean_step(toy(), data, {}, ()), toy(), data)
    assert set(step.parents) == {"features", "clean", "data", "victim"}
    assert step.config == {"protocol": "market1501"}


def test_several_sources_choose_the_hardest_target_together(lab, data) -> None:
    run = attacked(Paste(), HARDEST)
    alone = [read_targets(lab.run(craft_step(run, (toy(seed),), data, None, {}, 3, ()))) for seed in (0, 5)]
    twice = read_targets(lab.run(craft_step(run, (toy(0), toy(5)), data, None, {}, 3, ())))
    same = alone[0] == alone[1]
    assert (twice[same] == alone[0][same]).all()
    assert (twice != np.arange(4)).all()
