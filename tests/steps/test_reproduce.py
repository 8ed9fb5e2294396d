"""Step reproduce: published values, rounded as they are."""

from __future__ import annotations

import re

import pytest

from reid_attack_bench.contracts import PublishedValues
from reid_attack_bench.errors import VictimError
from reid_attack_bench.steps.data import data_step
from reid_attack_bench.steps.embed import clean_step
from reid_attack_bench.steps.rank import clean_rank_step
from reid_attack_bench.steps.reproduce import reproduce_step
from tests.steps.conftest import alike, toy


def ranked(lab):
    """A clean ranking, and its Rank-1 and mAP with one decimal."""
    data = data_step(alike(people=6, queries=10))
    rank = clean_rank_step(clean_step(toy(), data, {}, ()), toy(), data, 0.0)
    lab.run(rank)
    return rank, *(round(lab.facts[rank.key][name], 1) for name in ("rank1", "mAP"))


@pytest.mark.parametrize(("rank1", "mean"), [(0, 0), (0.5, -0.5), (-0.5, 0.5)])
def test_a_figure_within_half_a_point_is_reproduced(lab, rank1: float, mean: float) -> None:
    rank, found_rank1, found_map = ranked(lab)
    step = reproduce_step(rank, PublishedValues(round(found_rank1 + rank1, 1), round(found_map + mean, 1)))
    lab.run(step)
    assert lab.facts[step.key] == {"rank1": found_rank1, "mAP": found_map}


@pytest.mark.parametrize(("rank1", "mean"), [(0.6, 0), (-0.6, 0), (0, 0.6), (0, -0.6)])
def test_more_than_half_a_point_off_in_either_direction_is_not(lab, rank1: float, mean: float) -> None:
    rank, found_rank1, found_map = ranked(lab)
    published = PublishedValues(round(found_rank1 + rank1, 1), round(found_map + mean, 1))
    says = (
        f"clean figure not reproduced: published Rank-1 {published.rank1}, mAP {published.mAP}; here {found_rank1}, "
        f"{found_map}. toy0 on alike: check weights, data, preprocessing (input size, channel order, normalisation) "
        "and cameras"
    )
    with pytest.raises(VictimError, match=f"^{re.escape(says)}$"):
        lab.run(reproduce_step(rank, published))
