"""CMC, mAP and mINP against torchreid and against literal definitions; bootstrap intervals."""

from __future__ import annotations

import contextlib
import io
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchreid.reid.metrics.rank import evaluate_rank

from reid_attack_bench.contracts import distances
from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics import ranking as metric
from reid_attack_bench.metrics.bootstrap import interval, intervals
from reid_attack_bench.metrics.ranking import distance_rows, rank, summary, top_matches

Case = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def torchreid(case: Case, max_rank: int, classic: bool = False) -> tuple[np.ndarray, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        return evaluate_rank(*case, max_rank=max_rank, use_metric_cuhk03=classic, use_cython=False)


def random_case(seed: int, queries: int = 40, gallery: int = 150, identities: int = 12, cameras: int = 3) -> Case:
    rng = np.random.default_rng(seed)
    return (
        rng.random((queries, gallery)).astype(np.float32),
        rng.integers(0, identities, queries),
        rng.integers(0, identities, gallery),
        rng.integers(0, cameras, queries),
        rng.integers(0, cameras, gallery),
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Small and degenerate: ties, few identities, single cameras, queries without a match."""
    queries, gallery = draw(st.integers(1, 6)), draw(st.integers(1, 40))
    levels = draw(st.sampled_from([1, 2, 5, 10**6]))
    identities, cameras = draw(st.integers(1, 8)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    distances = rng.integers(0, levels, (queries, gallery)).astype(draw(st.sampled_from([np.float32, np.float64])))
    return (
        distances,
        rng.integers(0, identities, queries),
        rng.integers(0, identities, gallery),
        rng.integers(0, cameras, queries),
        rng.integers(0, cameras, gallery),
    )


def kept_matches(case: Case, query: int) -> list[bool]:
    """Correct or not, in the order of the ranking, junk removed: the definition, one image at a time."""
    distances, q_ids, g_ids, q_cams, g_cams = case
    return [
        bool(g_ids[j] == q_ids[query])
        for j in np.argsort(distances, axis=1)[query]
        if not (g_ids[j] == q_ids[query] and g_cams[j] == q_cams[query])
    ]


def matlab_ap(found: list[bool]) -> float:
    """compute_AP.m of Market-1501's evaluation code, one image at a time; junk is removed already."""
    total, ap, recall, precision, hits = sum(found), 0.0, 0.0, 1.0, 0
    for seen, correct in enumerate(found, 1):
        hits += correct
        now, height = hits / total, hits / seen
        ap += (now - recall) * (precision + height) / 2
        recall, precision = now, height
        if hits == total:
            break
    return ap


@settings(max_examples=200, deadline=None)
@given(cases(), st.sampled_from([1, 5, 20, 50]))
def test_rank_agrees_with_torchreid_and_with_the_definitions(case: Case, max_rank: int) -> None:
    matches = [kept_matches(case, query) for query in range(len(case[0]))]
    if not any(map(any, matches)):
        with pytest.raises(BenchError, match="another camera"):
            rank(*case, max_rank=max_rank)
        with pytest.raises(AssertionError):
            torchreid(case, max_rank)
        return
    result = rank(*case, max_rank=max_rank)
    for query, found in enumerate(matches):
        assert result.valid[query] == any(found)
        if not any(found):
            assert result.first[query] == -1
            assert np.isnan([result.ap[query], result.inp[query], *result.hits[query]]).all()
            continue
        places = [place for place, correct in enumerate(found, 1) if correct]
        assert result.first[query] == places[0] - 1
        assert result.ap[query] == pytest.approx(np.mean([n / place for n, place in enumerate(places, 1)]))
        assert result.ap_trapezoid[query] == pytest.approx(matlab_ap(found))
        assert result.inp[query] == pytest.approx(len(places) / places[-1])
        assert result.hits[query].tolist() == [float(r >= places[0]) for r in range(1, max_rank + 1)]

    lengths = {min(len(found), max_rank) for found in matches if any(found)}
    if len(lengths) == 1:  # torchreid cannot average curves of different lengths
        cmc, mean_ap = torchreid(case, max_rank)
        np.testing.assert_allclose(np.nanmean(result.hits, axis=0)[: len(cmc)], cmc, atol=1e-6)
        assert summary(result)["mAP"] == pytest.approx(100 * mean_ap, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_rank_agrees_with_torchreid_at_size(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(seed)
    cmc, mean_ap = torchreid(case, 50)
    monkeypatch.setattr(metric, "_ENTRIES", 7 * 150)
    result = rank(*case)
    np.testing.assert_allclose(np.nanmean(result.hits, axis=0), cmc, atol=1e-6)
    scores = summary(result)
    assert [scores["rank1"], scores["rank5"], scores["rank20"]] == pytest.approx(100 * cmc[[0, 4, 19]], abs=1e-4)
    assert scores["mAP"] == pytest.approx(100 * mean_ap, abs=1e-6)


@pytest.mark.e2e
def test_rank_agrees_with_torchreid_on_a_gallery_of_market_1501() -> None:
    # as close together as cosine distances of 2,048 dimensions are, so that many are equal in 32 bits
    case = random_case(4, queries=30, gallery=15913, identities=751, cameras=6)
    close = np.random.default_rng(4).normal(1.0, 0.02, case[0].shape)
    close -= 0.04 * (case[1][:, None] == case[2])
    case = (close.astype(np.float32), *case[1:])
    cmc, mean_ap = torchreid(case, 50)
    result = rank(*case)
    np.testing.assert_allclose(np.nanmean(result.hits, axis=0), cmc, atol=1e-6)
    assert np.nanmean(result.ap) == pytest.approx(mean_ap, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 2**32 - 1), st.sampled_from([1, 5, 50]))
def test_the_cuhk03_protocol_draws_what_torchreid_draws(case: Case, seed: int, max_rank: int) -> None:
    if not any(any(kept_matches(case, query)) for query in range(len(case[0]))):
        return
    state = np.random.get_state()
    np.random.seed(seed)
    cmc, mean_ap = torchreid(case, max_rank, classic=True)
    np.random.set_state(state)
    result = rank(*case, protocol="cuhk03", max_rank=max_rank, rng=np.random.RandomState(seed))
    for query in np.flatnonzero(result.valid):
        assert result.ap_trapezoid[query] == pytest.approx(matlab_ap(kept_matches(case, query)))
    average = np.nanmean(result.hits, axis=0)
    np.testing.assert_allclose(average[: len(cmc)], cmc, atol=1e-6)
    np.testing.assert_allclose(average[len(cmc) :], 1.0)
    assert np.nanmean(result.ap) == pytest.approx(mean_ap, abs=1e-6)


def test_cuhk03_hits_are_fractions_and_agree_at_size() -> None:
    case = random_case(5, identities=60)
    state = np.random.get_state()
    np.random.seed(11)
    cmc, _ = torchreid(case, 20, classic=True)
    np.random.set_state(state)
    result = rank(*case, protocol="cuhk03", max_rank=20, rng=np.random.RandomState(11))
    np.testing.assert_allclose(np.nanmean(result.hits, axis=0), cmc, atol=1e-6)
    assert (result.hits[result.valid] % 1 != 0).any()


def test_a_ranking_worked_by_hand() -> None:
    # query of identity 7 seen by camera 0; nearest first: junk, wrong, right, wrong, right
    case = (
        np.array([[0.1, 0.2, 0.3, 0.4, 0.5]]),
        np.array([7]),
        np.array([7, 1, 7, 2, 7]),
        np.array([0]),
        np.array([0, 0, 1, 0, 2]),
    )
    result = rank(*case, max_rank=5)
    assert result.first.tolist() == [1]
    assert result.ap[0] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert result.ap_trapezoid[0] == pytest.approx((1 / 2 * (0 + 1 / 2) + 1 / 2 * (1 / 3 + 2 / 4)) / 2)
    assert result.inp[0] == pytest.approx(2 / 4)
    assert result.hits.tolist() == [[0, 1, 1, 1, 1]]
    scores = {"rank1": 0, "rank5": 100, "mAP": 50, "mINP": 50, "mAP_trapezoid": 100 * result.ap_trapezoid[0]}
    assert summary(result) == pytest.approx(scores)
    assert top_matches(*case, k=3).tolist() == [[1, 2, 3]]
    assert top_matches(*case, k=6).tolist() == [[1, 2, 3, 4, -1, -1]]


def test_blocks_of_rows_rank_like_the_whole() -> None:
    case = random_case(1)
    whole = rank(*case)
    blocks = rank(iter(np.split(case[0], [1, 20])), *case[1:])
    for name in vars(whole):
        np.testing.assert_array_equal(getattr(whole, name), getattr(blocks, name))


def test_ties_are_sorted_where_figures_hang_on_them_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    # 5,000 strangers and 3 correct matches: one of the first query's shares its distance with a stranger far down the
    # ranking, one of the second's high up, the first match of the third
    case = random_case(3, queries=3, gallery=5003, identities=1, cameras=1)
    case[2][:5000], case[3][:] = 1, 1
    for query, match, place in ((0, 2, 4000), (1, 1, 3), (2, 0, 1500)):
        strangers, matches = case[0][query, :5000], case[0][query, 5000:]
        matches[:] = 1.1, 1.2, 1.3
        matches[:match] = strangers.min() / 2
        matches[match] = np.sort(strangers)[place]
    sorted_rows = []
    argsort = np.argsort
    monkeypatch.setattr(np, "argsort", lambda a, **k: (a.ndim == 2 and sorted_rows.append(len(a))) or argsort(a, **k))
    result = rank(*case)
    assert sorted_rows == [2]
    cmc, mean_ap = torchreid(case, 50)
    np.testing.assert_allclose(np.nanmean(result.hits, axis=0), cmc, atol=1e-6)
    assert summary(result)["mAP"] == pytest.approx(100 * mean_ap, abs=1e-4)


def test_infinite_distances_rank_last() -> None:
    distances, *labels = random_case(8)
    distances[:, ::3] = np.inf
    cmc, mean_ap = torchreid((distances, *labels), 50)  # type: ignore[arg-type]
    result = rank(distances, *labels)
    np.testing.assert_allclose(np.nanmean(result.hits, axis=0), cmc, atol=1e-6)
    assert summary(result)["mAP"] == pytest.approx(100 * mean_ap, abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [7, 10**6])
def test_threads_and_torch_count_the_same(dtype: type, levels: int) -> None:
    rng = np.random.default_rng(levels)
    block = rng.integers(0, levels, (9, 80)).astype(dtype)
    rows, columns = np.nonzero(rng.random(block.shape) < 0.1)
    wanted = np.sort(rng.integers(-1, levels + 1, (9, 6)).astype(dtype), axis=1)
    wanted[:4, 3:] = np.inf
    before = block.copy()
    with ThreadPoolExecutor(2) as pool:
        threads = metric._nearer_by_threads(block, rows, columns, wanted, pool)
    torch_ones = metric._nearer_on_device(torch.from_numpy(block), rows, columns, wanted)
    others = np.where(np.isin(np.arange(block.size).reshape(block.shape), rows * 80 + columns), np.inf, block)
    literal = (others[:, None] < wanted[:, :, None]).sum(2), (others[:, None] <= wanted[:, :, None]).sum(2)
    for found in (threads, torch_ones):
        np.testing.assert_array_equal(found[0], literal[0])
        np.testing.assert_array_equal(found[1], literal[1])
    np.testing.assert_array_equal(block, before)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_rows_of_distances_are_the_matrix_and_never_all_of_it(distance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, *labels = random_case(2)
    generator = torch.Generator().manual_seed(0)
    query, gallery = (torch.randn(count, 24, generator=generator) for count in (40, 150))
    monkeypatch.setattr(metric, "_ENTRIES", 7 * 150)
    rows = list(distance_rows(query, gallery, distance))
    assert [len(part) for part in rows] == [7] * 5 + [5]
    whole = distances(query, gallery, distance)
    torch.testing.assert_close(torch.cat(rows), whole)
    for same in (iter(rows), torch.cat(rows), torch.cat(rows).numpy()):
        assert summary(rank(same, *labels)) == pytest.approx(summary(rank(whole.numpy(), *labels)), abs=1e-6)


def test_rank_takes_arrays_that_nobody_may_write_to_and_leaves_others_as_they_were() -> None:
    case = random_case(6)
    before = case[0].copy()
    expected = rank(*case).ap
    np.testing.assert_array_equal(case[0], before)
    case[0].flags.writeable = False
    np.testing.assert_array_equal(rank(*case).ap, expected)
    np.testing.assert_array_equal(rank(np.asfortranarray(case[0]), *case[1:]).ap, expected)


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 2**32 - 1), st.booleans())
def test_the_clothes_protocol_is_that_of_a_double_loop(case: Case, seed: int, tensors: bool) -> None:
    distances, q_ids, g_ids, q_cams, g_cams = case
    rng = np.random.default_rng(seed)
    clothes = [rng.integers(0, 3, len(ids)) for ids in (q_ids, g_ids)]
    found = []
    for query in range(len(q_ids)):
        matches = []
        for image in np.argsort(distances, axis=1)[query]:
            same = g_ids[image] == q_ids[query]
            if same and (g_cams[image] == q_cams[query] or clothes[1][image] == clothes[0][query]):
                continue
            matches.append(bool(same))
        found.append(matches)
    given_distances = torch.from_numpy(distances.copy()) if tensors else distances
    options: dict[str, Any] = {"query_clothes": clothes[0], "gallery_clothes": clothes[1]}
    if not any(map(any, found)):
        with pytest.raises(BenchError, match="another camera and in other clothes"):
            rank(given_distances, *case[1:], protocol="clothes", **options)
        return
    result = rank(given_distances, *case[1:], protocol="clothes", **options)
    for query, matches in enumerate(found):
        assert result.valid[query] == any(matches)
        if any(matches):
            places = [place for place, correct in enumerate(matches, 1) if correct]
            assert result.first[query] == places[0] - 1
            assert result.ap[query] == pytest.approx(np.mean([n / place for n, place in enumerate(places, 1)]))
            assert result.ap_trapezoid[query] == pytest.approx(matlab_ap(matches))
            assert result.inp[query] == pytest.approx(len(places) / places[-1])
    plain = rank(given_distances, *case[1:], **options)
    np.testing.assert_array_equal(plain.ap, rank(*case).ap, "clothes play no part in the others")
    listed = top_matches(given_distances, *case[1:], k=4, **options)
    for query, images in enumerate(listed):
        kept = images[images >= 0]
        assert len(kept) == min(4, len(found[query]))
        assert (g_ids[kept] == q_ids[query]).sum() >= sum(found[query][: len(kept)]) or levels_tie(distances[query])
        junk = (g_cams[kept] == q_cams[query]) | (clothes[1][kept] == clothes[0][query])
        assert not (junk & (g_ids[kept] == q_ids[query])).any()


def levels_tie(row: np.ndarray) -> bool:
    return len(np.unique(row)) < len(row)


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(1, 12))
def test_top_matches_are_the_nearest_that_are_not_junk(case: Case, k: int) -> None:
    found = top_matches(*case, k=k)
    assert found.shape == (len(case[0]), k)
    distances, q_ids, g_ids, q_cams, g_cams = case
    for query, indices in enumerate(found):
        kept = np.flatnonzero((g_ids != q_ids[query]) | (g_cams != q_cams[query]))
        count = min(k, len(kept))
        assert set(indices[:count]) <= set(kept.tolist())
        assert len(set(indices[:count])) == count
        assert (indices[count:] == -1).all()
        np.testing.assert_array_equal(distances[query, indices[:count]], np.sort(distances[query, kept])[:count])


def test_the_mean_of_rankings_is_that_of_each_query() -> None:
    _, *labels = random_case(3)
    rng = np.random.default_rng(3)
    draws = [rank(rng.random((len(labels[0]), len(labels[1]))), *labels) for _ in range(4)]
    mean = metric.mean_of(draws)
    for name in ("ap", "ap_trapezoid", "inp", "hits"):
        np.testing.assert_allclose(getattr(mean, name), np.mean([getattr(draw, name) for draw in draws], axis=0))
    np.testing.assert_array_equal(mean.first, np.sort([draw.first for draw in draws], axis=0)[1])
    assert summary(mean)["mAP"] == pytest.approx(np.mean([summary(draw)["mAP"] for draw in draws]))
    assert metric.mean_of(draws[:1]) is draws[0]
    fewer = rank(
        rng.random((len(labels[0]), len(labels[1]))), labels[0], labels[1] + 100 * (labels[1] > 1), *labels[2:]
    )
    with pytest.raises(BenchError, match="differ in the queries"):
        metric.mean_of([draws[0], fewer])


def test_rank_refuses_what_it_cannot_rank() -> None:
    distances, *labels = random_case(0)
    broken = distances.copy()
    broken[13, 4] = np.nan
    refused: list[tuple[Any, list[np.ndarray], dict[str, Any], str]] = [
        (broken, labels, {}, "query 13 contain NaN"),
        (np.full_like(distances, np.nan), labels, {}, "query 0 contain NaN"),
        (distances.T, labels, {}, "40×150"),
        ([distances, distances], labels, {}, "starts at row 40"),
        ([distances[:30]], labels, {}, "30 queries, but 40"),
        (distances, [labels[0], labels[1], labels[2][:-1], labels[3]], {}, "query needs one identity"),
        (distances, labels, {"protocol": "cuhk03"}, "RandomState"),
        (distances, labels, {"protocol": "market"}, "market1501, cuhk03 or clothes"),
        (distances, labels, {"protocol": "clothes"}, "needs labels of clothes"),
        (
            distances,
            labels,
            {"protocol": "clothes", "query_clothes": labels[0], "gallery_clothes": labels[1][1:]},
            "gallery needs one label of clothes",
        ),
    ]
    for given_distances, given_labels, options, message in refused:
        with pytest.raises(BenchError, match=message):
            rank(given_distances, *given_labels, **options)


def test_interval_is_the_percentile_bootstrap() -> None:
    # three values have 27 equally likely resamples, so the quantiles of their means are known exactly
    values = np.array([0.0, 0.3, 1.2])
    exact = [np.mean(draw) for draw in itertools.product(values, repeat=3)]
    low, high = interval(values, seed=0, samples=40_000, level=0.8)
    assert [low, high] == pytest.approx(list(np.quantile(exact, [0.1, 0.9])), abs=1e-9)


def test_interval_is_seeded_drops_nan_and_narrows_with_queries() -> None:
    values = np.random.default_rng(0).random(300)
    first = interval(values, seed=4)
    assert first == interval(np.append(values, np.nan), seed=4)
    assert first != interval(values, seed=5)
    assert first[0] < values.mean() < first[1]
    assert np.subtract(*first[::-1]) < np.subtract(*interval(values[:30], seed=4)[::-1])
    assert interval(values, seed=4, level=0.5)[0] > first[0]
    assert interval(np.array([0.25]), seed=0) == (0.25, 0.25)


def test_intervals_of_columns_are_those_of_each_by_itself() -> None:
    rng = np.random.default_rng(2)
    columns = np.stack([rng.random(500) < 0.4, rng.random(500)], axis=1)
    both = intervals(columns, seed=3)
    assert both.tolist() == [list(interval(column, seed=3)) for column in columns.T]
    columns[7, 0] = np.nan
    assert intervals(columns, seed=3)[1].tolist() == list(interval(np.delete(columns[:, 1], 7), seed=3))


def test_an_interval_of_a_seed_stays_what_it_is() -> None:
    # stored reports are compared byte by byte, so a change of these numbers asks for a new REPORT_VERSION
    values = np.linspace(0, 1, 3368) ** 2
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), size=(2000, len(values)))].mean(axis=1)
    assert interval(values, seed=0) == tuple(np.quantile(means, [(1 - 0.95) / 2, (1 + 0.95) / 2]))


def test_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    truth, trials = 0.7, 300
    covered = 0
    for trial in range(trials):
        low, high = interval(rng.random(150) < truth, seed=trial, samples=400, level=0.9)
        covered += low <= truth <= high
    assert 0.84 <= covered / trials <= 0.95


def test_interval_refuses_no_queries_and_bad_levels() -> None:
    with pytest.raises(BenchError, match="at least one query"):
        interval(np.array([np.nan]), seed=0)
    with pytest.raises(BenchError, match="level"):
        interval(np.ones(3), seed=0, level=95)
