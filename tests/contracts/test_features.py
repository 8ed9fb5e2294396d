"""Features of victims with a comparison of their own: packed, unpacked and compared."""

from __future__ import annotations

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from reid_attack_bench.contracts import Victim, WrappedVictim, packed, paired
from reid_attack_bench.contracts.features import Layout, Packed
from reid_attack_bench.errors import VictimError
from reid_attack_bench.metrics.ranking import compared_rows
from tests.plugins.parts import FAR, Everyone, Lost, Nested, Parts, Stripes
from tests.plugins.toy import ToyVictim


def images(count: int, seed: int = 0, dark: bool = True) -> torch.Tensor:
    """Random images with some dark stripes."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.rand(count, 3, 64, 32, generator=generator)
    for row in range(count if dark else 0):
        for part in range(4):
            if torch.rand((), generator=generator) < 0.4:
                made[row, :, 16 * part : 16 * part + 16] *= 0.1
    return made


def bpbreid(query: dict, gallery: dict) -> np.ndarray:
    """Mean over mutually visible parts of the Euclidean distance, with loops."""
    found = np.full((len(query["parts"]), len(gallery["parts"])), FAR)
    for i, (one, seen) in enumerate(zip(query["parts"].numpy(), query["visible"].tolist(), strict=True)):
        for j, (other, too) in enumerate(zip(gallery["parts"].numpy(), gallery["visible"].tolist(), strict=True)):
            common = [k for k in range(4) if seen[k] and too[k]]
            if common:
                found[i, j] = sum(math.dist(one[k], other[k]) for k in common) / len(common)
    return found


def aligned(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """The local distance of AlignedReID by recursion: (e^d − 1)/(e^d + 1) along the shortest path, right or down."""
    found = np.empty((len(query), len(gallery)))
    for i, one in enumerate(query):
        for j, other in enumerate(gallery):
            apart = np.tanh(np.linalg.norm(one[:, None] - other[None], axis=2) / 2)

            def shortest(row: int, column: int, apart: np.ndarray = apart) -> float:
                if row == column == 0:
                    return float(apart[0, 0])
                ways = [(r, c) for r, c in ((row - 1, column), (row, column - 1)) if r >= 0 and c >= 0]
                return float(apart[row, column]) + min(shortest(*way) for way in ways)

            found[i, j] = shortest(3, 3)
    return found


@pytest.mark.parametrize("victim", [Parts(), Stripes(), Nested()])
def test_packed_features_are_compared_as_the_victim_compares_them(victim: Victim) -> None:
    outer = packed(victim.eval())
    query, gallery = images(5), images(9, seed=1)
    with torch.no_grad():
        embedded = outer.embed(query), outer.embed(gallery)
        trees = victim.embed(query), victim.embed(gallery)
    assert embedded[0].dtype == torch.float32
    assert embedded[0].ndim == 2
    if isinstance(victim, Stripes):
        stripes = Stripes().eval()
        expected = aligned(*(stripes.embed(each).detach().numpy() for each in (query, gallery)))
    else:
        expected = bpbreid(*trees)
        assert (expected == FAR).any(), "there are pairs without a common part"
    np.testing.assert_allclose(outer.compare(*embedded), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outer.compare(*embedded), victim.compare(*trees).detach(), rtol=1e-6)
    rows = torch.cat(list(compared_rows(outer.compare, *embedded)))
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        paired(outer, embedded[0], embedded[1][:5]), np.diag(expected[:, :5]), rtol=1e-4, atol=1e-4
    )


def test_gradients_pass_through_packing_and_comparison() -> None:
    outer = packed(Parts())
    seen = images(3, dark=False).requires_grad_(True)
    distances = outer.compare(outer.embed(seen), outer.embed(images(2, seed=1, dark=False)))
    (gradient,) = torch.autograd.grad(distances.sum(), seen)
    step = 1e-3 * gradient / gradient.abs().max()
    with torch.no_grad():
        others = outer.embed(images(2, seed=1, dark=False))
        ends = [outer.compare(outer.embed(seen + sign * step), others).sum() for sign in (1, -1)]
    assert float(ends[0] - ends[1]) / 2 == pytest.approx(float((gradient * step).sum()), rel=0.05)


shapes = st.lists(st.integers(1, 3), max_size=2).map(tuple)
leaves = st.tuples(shapes, st.sampled_from([torch.float32, torch.float16, torch.float64, torch.bool, torch.int64]))
trees = st.recursive(
    leaves,
    lambda below: (
        st.lists(below, min_size=1, max_size=3)
        | st.dictionaries(st.text(max_size=3), below, min_size=1, max_size=3)
        | st.lists(below, min_size=1, max_size=2).map(lambda parts: ("tuple", parts))
    ),
    max_leaves=6,
)


def built(plan: object) -> object:
    if isinstance(plan, tuple) and plan and plan[0] == "tuple":
        return tuple(built(each) for each in plan[1])
    if isinstance(plan, tuple):
        shape, dtype = plan
        return (torch.randn(4, *shape) * 3).to(dtype)
    if isinstance(plan, dict):
        return {name: built(each) for name, each in plan.items()}
    assert isinstance(plan, list)
    return [built(each) for each in plan]


@hypothesis.given(trees)
@hypothesis.settings(max_examples=40)
def test_any_tree_comes_back(plan: object) -> None:
    features = [torch.randn(4, 2), built(plan)]
    layout, tensors = Layout.of(features, 4, "it")
    matrix = layout.packed(tensors)
    assert matrix.is_floating_point()
    assert matrix.shape == (4, len(layout.floating()))
    again, others = Layout.of(layout.unpacked(matrix), 4, "it")
    assert again.tree == layout.tree
    for before, after in zip(tensors, others, strict=True):
        assert before.shape == after.shape
        assert before.dtype == after.dtype or before.is_floating_point()
        assert torch.equal(before.to(after.dtype), after)


def test_others_are_not_packed_and_compare_by_their_distance() -> None:
    toy = ToyVictim()
    assert packed(toy) is toy
    assert not toy.own_comparison
    outer = packed(Parts())
    assert packed(outer) is outer
    assert isinstance(outer, Packed)
    assert outer.name == "Parts"
    assert WrappedVictim(outer).own_comparison, "and so does what is around it"
    with torch.no_grad():
        embedded = outer.embed(images(3))
    assert torch.equal(WrappedVictim(outer).compare(embedded, embedded), outer.compare(embedded, embedded))


def test_a_victim_that_has_embedded_nothing_yet_knows_its_features() -> None:
    with torch.no_grad():
        embedded = packed(Parts()).embed(images(3))
        assert torch.equal(packed(Parts()).compare(embedded, embedded), packed(Parts()).compare(embedded, embedded))


@pytest.mark.parametrize(("features", "says"), [
    ([torch.zeros(3, 2), None], "a NoneType in its features of 3 images"),
    ([torch.zeros(2, 2)], r"torch.float32 \(2, 2\) in its features of 3 images"),
    ([torch.zeros(3, dtype=torch.bool)], "no tensor of its features is of floating point values"),
    ([], "embed returned no tensor but an empty list"),
])  # fmt: skip
def test_what_is_no_tree_of_tensors_is_said(features: object, says: str) -> None:
    class Odd(Parts):
        def embed(self, images):
            return features

    with pytest.raises(VictimError, match=f"victim Odd: .*{says}"):
        packed(Odd()).embed(images(3))


def test_what_is_no_distance_is_said() -> None:
    class Short(Parts):
        def compare(self, query, gallery):
            return super().compare(query, gallery).mean(dim=1)

    for victim, says in ((Short(), r"compare returned torch.float32 \(3,\)"), (Lost(), "compare returned NaN")):
        outer = packed(victim)
        with torch.no_grad(), pytest.raises(VictimError, match=says):
            outer.compare(outer.embed(images(3)), outer.embed(images(2)))


def test_a_mean_over_draws_keeps_truth_values() -> None:
    outer = packed(Parts())
    assert isinstance(outer, Packed)
    with torch.no_grad():
        embedded = torch.stack([outer.embed(images(4)), outer.embed(images(4)) * 0.999]).mean(dim=0)
    assert torch.equal(outer.layout.unpacked(embedded)["visible"], Parts().embed(images(4))["visible"])


def test_a_comparison_with_others_differs_between_blocks() -> None:
    outer = packed(Everyone())
    with torch.no_grad():
        embedded = outer.embed(images(6))
        assert not torch.equal(outer.compare(embedded, embedded)[:2], outer.compare(embedded[:2], embedded))
