"""k-reciprocal re-ranking and query expansion against plain implementations of their definitions."""

from __future__ import annotations

import importlib.util
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchreid.reid.utils.rerank import re_ranking

from reid_attack_bench.contracts import Distance, Victim, WrappedVictim, distances
from reid_attack_bench.errors import BenchError
from reid_attack_bench.victims import reranking
from reid_attack_bench.victims.reranking import KReciprocal, QueryExpansion


class Ranks(Victim):
    """A victim of which only the distance is asked."""

    def __init__(self, distance: Distance = "euclidean") -> None:
        super().__init__()
        self.distance = distance


class Halved(Ranks):
    """Half the root of the Euclidean distance, less ten, in a way of its own."""

    def compare(self, query, gallery):
        return 0.5 * distances(query, gallery, "euclidean").clamp_min(0).sqrt() - 10


def embeddings(queries: int, gallery: int, people: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(people, 16, generator=generator)
    made = [centres[torch.arange(count) % people] + 0.6 * torch.randn(count, 16, generator=generator)
            for count in (queries, gallery)]  # fmt: skip
    return made[0], made[1]


def literal(apart: np.ndarray, queries: int, k1: int, k2: int, weight: float) -> np.ndarray:
    """The formulas of the paper with sets and loops, and rows of distances and of codes scaled as in its code."""
    count = len(apart)
    apart = apart / apart.max(axis=1, keepdims=True)
    order = np.argsort(apart, axis=1, kind="stable")

    def nearest(image: int, k: int) -> set[int]:
        return {int(other) for other in order[image][: k + 1]}  # and itself

    def reciprocal(image: int, k: int) -> set[int]:
        return {other for other in nearest(image, k) if image in nearest(other, k)}

    codes = np.zeros((count, count))
    for image in range(count):
        own = reciprocal(image, k1)
        expanded = set(own)
        for other in own:
            candidate = reciprocal(other, round(k1 / 2))
            if len(own & candidate) > 2 / 3 * len(candidate):
                expanded |= candidate
        for other in expanded:
            codes[image, other] = math.exp(-apart[image, other])
        codes[image] /= codes[image].sum()
    local = np.stack([codes[order[image][:k2]].mean(axis=0) for image in range(count)])
    jaccard = np.array(
        [[1 - np.minimum(a, b).sum() / np.maximum(a, b).sum() for b in local[queries:]] for a in local[:queries]]
    )
    return (1 - weight) * jaccard + weight * apart[:queries, queries:]


def joined(blocks) -> np.ndarray:
    return torch.cat(list(blocks)).numpy()


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize(("queries", "gallery", "k1", "k2", "weight"), [
    (12, 40, 20, 6, 0.3),
    (10, 50, 5, 1, 0.0),
    (7, 30, 7, 3, 1.0),
    (3, 8, 20, 6, 0.3),  # fewer images than neighbours
    (1, 2, 20, 6, 0.5),
])  # fmt: skip
def test_k_reciprocal_is_that_of_the_paper(distance: Distance, queries, gallery, k1, k2, weight) -> None:
    query, others = embeddings(queries, gallery)
    victim = KReciprocal(k1, k2, weight).defend(Ranks(distance))
    everyone = torch.cat([query, others]).double()
    apart = distances(everyone, everyone, distance).clamp_min(0).numpy()
    np.fill_diagonal(apart, 0)
    found = joined(victim.rerank(query, others))
    np.testing.assert_allclose(found, literal(apart, queries, k1, k2, weight), atol=2e-6)


def test_k_reciprocal_is_that_of_torchreid_on_euclidean_distances(monkeypatch) -> None:
    """Its function squares what it is given."""
    monkeypatch.setattr(reranking, "_PAIRS", 900)  # many blocks
    monkeypatch.setattr(reranking, "_ROWS", 7)
    query, gallery = embeddings(30, 120)
    parts = [(query, gallery), (query, query), (gallery, gallery)]
    given = [distances(a.double(), b.double(), "euclidean").clamp_min(0).sqrt().numpy() for a, b in parts]
    found = joined(KReciprocal().defend(Ranks()).rerank(query, gallery))
    np.testing.assert_allclose(found, re_ranking(*given), atol=2e-6)


def test_a_comparison_of_its_own_is_re_ranked_by_its_distances() -> None:
    query, gallery = embeddings(10, 40)
    everyone = torch.cat([query, gallery])
    apart = 0.5 * distances(everyone, everyone, "euclidean").clamp_min(0).sqrt().numpy()
    np.fill_diagonal(apart, 0)
    victim = KReciprocal(8, 3).defend(Halved())
    assert victim.own_comparison
    np.testing.assert_allclose(joined(victim.rerank(query, gallery)), literal(apart, 10, 8, 3, 0.3), atol=1e-3)


@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_query_expansion_is_the_weighted_mean_of_the_query_and_its_nearest(alpha: float) -> None:
    query, gallery = embeddings(6, 30)
    found = joined(QueryExpansion(5, alpha).defend(Ranks()).rerank(query, gallery))
    for row, one in enumerate(query):
        similar = functional.cosine_similarity(one[None], gallery)
        nearest = similar.argsort(descending=True)[:5]
        weights = similar[nearest].clamp_min(0) ** alpha
        expanded = (one + (weights[:, None] * gallery[nearest]).sum(dim=0)) / (1 + weights.sum())
        np.testing.assert_allclose(found[row], (expanded - gallery).square().sum(dim=1), rtol=1e-4)


def fastreid_expansion():
    """The function of FastReID, from its file alone: its package imports much that it needs elsewhere."""
    package = importlib.util.find_spec("fastreid")
    if package is None or not package.submodule_search_locations:
        pytest.skip("fastreid is not installed")
    path = Path(package.submodule_search_locations[0]) / "evaluation" / "query_expansion.py"
    spec = importlib.util.spec_from_file_location("query_expansion_of_fastreid", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.aqe


def test_an_expanded_gallery_is_that_of_fastreid_on_unit_embeddings() -> None:
    aqe = fastreid_expansion()
    query, gallery = (functional.normalize(each) for each in embeddings(8, 40))
    found = joined(QueryExpansion(gallery=True).defend(Ranks("cosine")).rerank(query, gallery))
    expanded = aqe(query.clone(), gallery.clone(), qe_times=1, qe_k=5, alpha=3.0)
    np.testing.assert_allclose(found, distances(*expanded, "cosine"), atol=1e-5)


def test_a_short_gallery_is_averaged_whole() -> None:
    query, gallery = embeddings(2, 3)
    found = joined(QueryExpansion(k=9, alpha=0).defend(Ranks()).rerank(query, gallery))
    expanded = torch.stack([torch.cat([one[None], gallery]).mean(dim=0) for one in query])
    np.testing.assert_allclose(found, distances(expanded, gallery, "euclidean"), rtol=1e-4)


def test_no_distance_matrix_of_all_images_is_in_memory(monkeypatch) -> None:
    monkeypatch.setattr(reranking, "_PAIRS", 2**16)
    query, gallery = embeddings(200, 2800, people=600)
    victim = KReciprocal().defend(Ranks())
    tracemalloc.start()
    for block in victim.rerank(query, gallery):
        assert block.numel() <= 2**16
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000**2 * 4 / 2, "NumPy's and SciPy's; a matrix of all images has 36 MB"


def test_embeddings_and_comparison_stay_those_of_the_victim() -> None:
    inner = Ranks("cosine")
    for victim in (KReciprocal().defend(inner), QueryExpansion().defend(inner)):
        assert victim.reranks
        assert not victim.own_comparison
        assert victim.distance == "cosine"
        outer = WrappedVictim(victim)
        assert outer.reranks, "a defence around it is ranked by it, too"
        query, gallery = embeddings(3, 9)
        np.testing.assert_array_equal(joined(outer.rerank(query, gallery)), joined(victim.rerank(query, gallery)))
    assert not inner.reranks
    assert inner.rerank(*embeddings(3, 9)) is None


def test_what_cannot_be_combined_is_said() -> None:
    with pytest.raises(BenchError, match=r"k-reciprocal: Ranks re-ranks already \(query expansion\)"):
        KReciprocal().defend(named(QueryExpansion().defend(Ranks())))
    with pytest.raises(BenchError, match=r"query-expansion averages embeddings, and Halved compares .* k-reciprocal"):
        QueryExpansion().defend(Halved())


def named(victim: Victim) -> Victim:
    victim.name = "Ranks"
    return victim
