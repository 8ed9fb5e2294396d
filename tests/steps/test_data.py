"""Step data: every image is decoded once, and a data set that cannot be ranked is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reid_attack_bench.data.split import Split
from reid_attack_bench.errors import BenchError
from reid_attack_bench.steps.artefacts import read_splits
from reid_attack_bench.steps.data import data_step, has_training_split, images_attacked, source_of
from tests.steps.conftest import COUNTS, source


def test_a_data_step_stores_the_splits_and_counts_them(lab, data) -> None:
    splits = read_splits(lab.run(data))
    assert data.label == "data plaza"
    assert data.config == {"name": "plaza", "made": "here"}
    for part, count in COUNTS.items():
        assert isinstance(splits[part].images, np.memmap)
        assert splits[part].images.shape == (count, 64, 32, 3)
        assert lab.facts[data.key][part] == {"images": count, "identities": 4, "cameras": 1}
    assert (splits["query"].cameras == 0).all()


def test_counts_of_the_sides(data) -> None:
    assert source_of(data).counts == COUNTS
    assert [images_attacked(data, side) for side in ("query", "gallery", "both")] == [4, 12, 16]


def test_a_data_set_without_a_training_split_has_the_other_two(lab) -> None:
    whole = source()

    def load(progress, allocate):
        return {part: split for part, split in whole.load(progress, allocate).items() if part != "train"}

    target = data_step(replace(whole, load=load, counts={**COUNTS, "train": 0}))
    assert not has_training_split(target)
    assert set(read_splits(lab.run(target))) == {"query", "gallery"}
    assert set(lab.facts[target.key]) == {"query", "gallery"}


@pytest.mark.parametrize("part", ["query", "gallery"])
def test_a_data_set_without_queries_or_gallery_is_refused(lab, part: str) -> None:
    whole = source()

    def load(progress, allocate):
        return {name: split for name, split in whole.load(progress, allocate).items() if name != part}

    with pytest.raises(BenchError, match=f"plaza has no {part} images"):
        lab.run(data_step(replace(whole, load=load)))


def test_a_data_set_without_a_match_is_refused(lab) -> None:
    whole = source()

    def strangers(progress, allocate):
        splits = dict(whole.load(progress, allocate))
        query = splits["query"]
        return {**splits, "query": Split(query.images, query.identities + 100, query.cameras)}

    with pytest.raises(BenchError, match="plaza: no query identity occurs in the gallery"):
        lab.run(data_step(replace(whole, load=strangers)))
