"""Measures of impersonation against a brute-force implementation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reid_attack_bench.metrics import catalogue
from reid_attack_bench.metrics.targeted import RANKS, rank_targets, targeted_summary


@dataclass(frozen=True)
class Case:
    """Distances of clean and adversarial queries without ties, and targets that every query can retrieve."""

    clean: np.ndarray
    adversarial: np.ndarray
    targets: np.ndarray
    query: tuple[np.ndarray, np.ndarray]
    gallery: tuple[np.ndarray, np.ndarray]

    def ranked(self, distances: np.ndarray, *, tensors: bool = False):
        blocks = [torch.from_numpy(distances[:1].copy()), torch.from_numpy(distances[1:].copy())]
        return rank_targets(
            blocks if tensors else [distances], self.targets, self.query[0], self.gallery[0], self.query[1],
            self.gallery[1], max_rank=max(RANKS),
        )  # fmt: skip


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    people, cameras = draw(st.integers(2, 6)), draw(st.integers(2, 4))
    queries, images = draw(st.integers(1, 8)), draw(st.integers(0, 40))
    both = np.arange(people).repeat(2)  # everyone is seen by two cameras, so everyone can be retrieved
    gallery = np.concatenate([both, rng.integers(0, people, images)])
    gallery_cameras = np.concatenate([np.tile([0, 1], people), rng.integers(0, cameras, images)])
    own = rng.integers(0, people, queries)
    targets = (own + rng.integers(1, people, queries)) % people
    apart = [rng.permuted(np.tile(np.arange(len(gallery)), (queries, 1)), axis=1).astype(np.float32) for _ in "ab"]
    return Case(*apart, targets, (own, rng.integers(0, cameras, queries)), (gallery, gallery_cameras))


def positions(case: Case, distances: np.ndarray, query: int) -> list[int]:
    """1-based positions of the images of the target, from the list that the query retrieves."""
    retrieved = []
    for image in sorted(range(len(case.gallery[0])), key=lambda image: distances[query, image]):
        identity, camera = case.gallery[0][image], case.gallery[1][image]
        junk = camera == case.query[1][query] and identity in (case.query[0][query], case.targets[query])
        if not junk:
            retrieved.append(identity)
    return [place for place, identity in enumerate(retrieved, 1) if identity == case.targets[query]]


@given(cases(), st.booleans())
def test_measures_are_those_of_the_definitions(case: Case, tensors: bool) -> None:
    found = targeted_summary(case.ranked(case.clean, tensors=tensors), case.ranked(case.adversarial, tensors=tensors))
    queries = range(len(case.targets))
    before, after = ([positions(case, apart, q) for q in queries] for apart in (case.clean, case.adversarial))
    for prefix, places in (("clean_", before), ("", after)):
        for k in RANKS:
            share = 100 * sum(min(each) <= k for each in places) / len(places)
            assert found[f"{prefix}target_rank{k}"] == pytest.approx(share)
        precisions = [[nth / place for nth, place in enumerate(each, 1)] for each in places]
        mean = 100 * sum(sum(each) / len(each) for each in precisions) / len(places)
        assert found[f"{prefix}target_mAP"] == pytest.approx(mean)
    for k in RANKS:
        left = [now for was, now in zip(before, after, strict=True) if min(was) > k]
        share = 100 * sum(min(now) <= k for now in left) / len(left) if left else None
        assert found[f"asr{k}"] == (None if share is None else pytest.approx(share))
    assert found["target_rank1_low"] <= found["target_rank1"] <= found["target_rank1_high"]
    assert set(found) == set(catalogue.targeted_columns())


def test_a_clean_query_that_has_its_target_already_is_no_success() -> None:
    """Two queries of person 0 by camera 0; the target is 1. The first retrieves it without an attack."""
    gallery = (np.array([0, 1, 0, 1, 2]), np.array([1, 1, 0, 0, 1]))
    clean = np.array([[2.0, 1, 0, 0, 3], [1, 2, 0, 0, 3]], np.float32)  # columns 2 and 3 are junk
    case = Case(clean, np.array([[2.0, 1, 0, 0, 3], [3, 1, 0, 0, 2]], np.float32), np.array([1, 1]),
                (np.array([0, 0]), np.array([0, 0])), gallery)  # fmt: skip
    found = targeted_summary(case.ranked(case.clean), case.ranked(case.adversarial))
    assert (found["clean_target_rank1"], found["target_rank1"], found["asr1"]) == (50.0, 100.0, 100.0)
    assert found["asr5"] is None  # both have it within 5 already
    assert found["clean_target_mAP"] == 75.0
    held = targeted_summary(case.ranked(case.clean), case.ranked(case.clean))
    assert (held["target_rank1"], held["asr1"]) == (50.0, 0.0)


def test_the_own_clothes_of_a_query_are_junk_and_those_of_its_target_are_not() -> None:
    """Person 0 by camera 0 in clothes 5; the target, 1, wears what has the same number."""
    labels = (np.array([0]), np.array([0, 0, 1, 2]), np.array([0]), np.array([1, 1, 1, 1]))
    distances = np.array([[0.0, 1.0, 2.0, 3.0]], np.float32)  # own in own clothes, own in others, target, another
    clothes = {"query_clothes": np.array([5]), "gallery_clothes": np.array([5, 6, 5, 5])}
    for block in (distances, torch.from_numpy(distances)):
        assert rank_targets([block], np.array([1]), *labels).first.tolist() == [2]
        assert rank_targets([block], np.array([1]), *labels, **clothes).first.tolist() == [1]
        assert distances[0, 0] == 0, "the blocks are left as they were"


def test_success_rates_and_targeted_accuracy_are_bad_for_the_victim() -> None:
    measures = catalogue.of_group("targeted")
    assert [measure.name for measure in measures][:4] == ["target_rank1", "target_rank5", "target_rank10", "target_mAP"]
    assert all(measure.higher_is_better is False and measure.high == 100.0 for measure in measures)
    for column in ("target_rank1", "clean_target_mAP", "target_mAP_low", "asr10"):
        measure = catalogue.measure_of(column)
        assert measure is not None
        assert measure.group == "targeted"
