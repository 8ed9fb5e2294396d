"""Rankings of victims that re-rank: every measure follows the re-ranked distances, and so do the pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reid_attack_bench.attacks.noise import Noise
from reid_attack_bench.contracts import ThreatModel, distances
from reid_attack_bench.data.source import DataSource
from reid_attack_bench.errors import VictimError
from reid_attack_bench.metrics.ranking import rank, top_matches
from reid_attack_bench.metrics.targeted import rank_targets
from reid_attack_bench.steps.artefacts import read_draws, read_nearest, read_pairs, read_ranking, read_targets
from reid_attack_bench.steps.craft import craft_step
from reid_attack_bench.steps.data import data_step
from reid_attack_bench.steps.embed import clean_step, features_step
from reid_attack_bench.steps.rank import clean_rank_step, rank_step
from reid_attack_bench.steps.step import Step
from tests.plugins.toy import ToyVictim
from tests.steps.conftest import alike, attacked, toy


def reordered(query: torch.Tensor, gallery: torch.Tensor) -> torch.Tensor:
    """Something that depends on all: distances with those of the other queries as a handicap, farthest first."""
    apart = distances(query, gallery, "cosine")
    return apart.mean(dim=0, keepdim=True) - apart


class Reranks(ToyVictim):
    """In blocks of two rows."""

    def rerank(self, query, gallery):
        yield from reordered(query, gallery).split(2)


class Promises(ToyVictim):
    reranks = True


def planned(data: Step, victim: Step, **threat: str) -> tuple[Step, Step]:
    clean = clean_step(victim, data, {}, ())
    craft = craft_step(attacked(Noise(), ThreatModel(64, **threat)), [toy()], data, None, {}, 4, ())
    features = features_step(craft, victim, data, {}, ())
    return clean_rank_step(clean, victim, data, 0.0), rank_step(features, clean, victim, data)


@pytest.fixture
def crowd() -> DataSource:
    return alike(people=6, queries=3)


def test_every_measure_follows_the_re_ranked_distances(lab, crowd) -> None:
    data = data_step(crowd)
    clean, attack = planned(data, toy(victim=Reranks()), impersonate="random")
    clean_folder, folder = lab.run(clean), lab.run(attack)
    (before,), (after,) = (read_draws(lab.folder / step.inputs["features"]) for step in (clean, attack))
    split = lab.workspace.splits(data.key)
    labels = [getattr(split[part], name) for name in ("identities", "cameras") for part in ("query", "gallery")]
    for draw, stored in ((before, clean_folder), (after, folder)):
        matrix = reordered(draw["query"], before["gallery"])
        expected, found = rank(matrix, *labels), read_ranking(stored)
        for name in ("ap", "inp", "hits", "first"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        same = labels[0][:, None] == labels[1]
        genuine = read_pairs(stored, "genuine")
        np.testing.assert_array_equal(np.sort(genuine.ravel()), np.sort(matrix.numpy()[same]))
        nearest = read_nearest(stored)
        np.testing.assert_array_equal(nearest, top_matches(matrix, *labels))
    plain = rank(distances(before["query"], before["gallery"], "cosine"), *labels)
    assert plain.ap.mean() > 0.8 > 0.5 > read_ranking(clean_folder).ap.mean(), "it is another ranking"
    targets = read_targets(lab.folder / attack.inputs["craft"])
    expected = rank_targets([reordered(after["query"], before["gallery"])], targets, *labels)
    np.testing.assert_array_equal(load_file(folder / "targeted.safetensors")["ap"].numpy(), expected.ap)


def test_others_store_no_nearest_images(lab, data) -> None:
    clean, attack = planned(data, toy())
    assert read_nearest(lab.run(clean)) is None
    assert read_nearest(lab.run(attack)) is None


def test_a_promise_that_is_not_kept_is_said(lab, data) -> None:
    clean, _ = planned(data, toy(victim=Promises()))
    with pytest.raises(VictimError, match="victim toy0: rerank returned None: declare reranks = False"):
        lab.run(clean)
