"""Findings over seeds, and the paper's figures beside ours."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from reid_attack_bench.report import markdown
from reid_attack_bench.report.analysis import conclude, findings, published, significance
from reid_attack_bench.report.record import DataRecord, RunRecord
from reid_attack_bench.report.results import PerQuery, Results, Setting
from reid_attack_bench.suites import parse
from tests.report.test_report import cell_row, change_cells, clean_row

VICTIMS = ("resnet50@market1501", "hacnn@market1501", "resnet50@cuhk03")


def results_of(claims: list[dict], figures: dict[tuple[str, int, int], float], spread: float = 0.5) -> Results:
    """A run whose Rank-1 is `figures[attack, epsilon, seed]` and a little more for each victim; SSIM falls with it."""
    attacks: dict[str, dict] = {}
    for attack, epsilon, seed in figures:
        entry = attacks.setdefault(attack, {"use": "noise", "epsilon": [], "seeds": []})
        entry["epsilon"] = sorted({*entry["epsilon"], epsilon})
        entry["seeds"] = sorted({*entry["seeds"], seed})
    parsed = parse.parse(
        {
            "datasets": {"market1501": {}, "cuhk03": {}},
            "victims": {
                "resnet50": {"use": "torchreid", "options": {"arch": "resnet50"}, "train_on": ["market1501", "cuhk03"]},
                "hacnn": {"use": "torchreid", "options": {"arch": "hacnn"}, "train_on": ["market1501", "cuhk03"]},
                "AlignedReID": {"use": "torchreid", "train_on": ["market1501", "cuhk03"]},
                "aligned": {"use": "torchreid", "train_on": ["market1501"]},
            },
            "attacks": attacks,
            "findings": claims,
        }
    )
    cells = []
    for (attack, epsilon, seed), rank1 in figures.items():
        for v, victim in enumerate(VICTIMS):
            value = rank1 + spread * v
            values = {"rank1": value, "mAP": value, "ssim": 0.5 + value / 200 + (0.1 if attack == "kind" else 0.0)}
            cell = cell_row(
                Setting(attack, epsilon), victim, victim, victim.partition("@")[2], relation="white-box",
                synthetic=False, queries=10, seed=seed, values=values, rank_key="any",
            )  # fmt: skip
            cells.append(cell)
    clean = [
        clean_row(
            victim, victim.partition("@")[2], {"rank1": 80.0, "mAP": 60.0}, synthetic=False, queries=10, rank_key="any"
        )
        for victim in VICTIMS
    ]
    return Results(
        record=RunRecord(replace(parsed, name="demo", headline_epsilon=16)),
        cells=cells, clean=clean,
        per_query={"any": PerQuery(np.ones(10), np.ones(10), np.ones(10, bool))},
    )  # fmt: skip


def arms(**values: list[float]) -> dict[tuple[str, int, int], float]:
    return {(name, 16, seed): value for name, each in values.items() for seed, value in enumerate(each)}


CLAIM = [{"claim": "a beats b", "lower": "a", "higher": "b"}]


EIGHT = [0.0, 1.0, 2.0, 1.5, 0.5, 1.2, 0.8, 0.3]


def around(level: float, scale: float = 1.0) -> list[float]:
    """Eight seeds about a level."""
    return [level + scale * each for each in EIGHT]


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        (around(10), around(20)[::-1], "confirmed"),
        (around(20), around(10)[::-1], "not confirmed"),
        (around(10, 5.0), around(11, 5.0)[::-1], "undecided"),
        (around(10)[:7], around(20)[6::-1], "indicative"),
        ([10, 11, 12], [20, 22, 21], "indicative"),
        ([0, 0, 0], [0, 0, 0], "undecided"),
        ([10], [20], "indicative"),
    ],
)
def test_verdicts(a: list[float], b: list[float], verdict: str) -> None:
    (judged,) = findings.evaluate_claims(results_of(CLAIM, arms(a=a, b=b)))
    assert judged.verdict == verdict
    assert judged.difference == pytest.approx(np.mean(b) - np.mean(a))
    assert judged.places == 3
    assert judged.seeds == (len(a) if any(a) else 1), "without a random number a single value is compared"
    assert bool(judged.reason) == (verdict == "indicative" or not any(a))
    assert (judged.p == judged.p) == (verdict != "indicative")


def test_the_interval_is_student_s_over_paired_seeds() -> None:
    a, b = [10.0, 13.0, 12.0, 9.0], [15.0, 16.0, 19.0, 12.0]
    (judged,) = findings.evaluate_claims(results_of(CLAIM, arms(a=a, b=b)))
    expected = stats.ttest_rel(b, a).confidence_interval(0.95)
    assert (judged.low, judged.high) == pytest.approx((expected.low, expected.high))


def test_one_seed_stands_against_every_seed_of_the_other() -> None:
    (judged,) = findings.evaluate_claims(results_of(CLAIM, arms(a=[10, 11, 12], b=[20])))
    assert judged.seeds == 3
    assert judged.difference == pytest.approx(9)


def test_a_single_seed_that_may_be_a_lucky_one_gives_no_verdict() -> None:
    (judged,) = findings.evaluate_claims(results_of(CLAIM, arms(a=around(10), b=[20])))
    assert (judged.seeds, judged.verdict) == (8, "indicative")
    assert judged.reason == "b has 1 seed, a verdict needs 8"
    (same,) = findings.evaluate_claims(results_of(CLAIM, arms(a=around(10), b=[20, 20])))
    assert (same.seeds, same.verdict) == (8, "confirmed"), "two seeds show that no random number is in it"
    assert same.covers == "8 seeds of a; victims, data and queries fixed"


def test_p_values_are_those_of_the_paired_test_and_holm_s() -> None:
    """With 40 claims of which one is true, the others are not confirmed by chance."""
    rng = np.random.default_rng(0)
    pairs = {f"p{i}": (rng.normal(50, 2, 8), rng.normal(50 + 10 * (i == 0), 2, 8)) for i in range(40)}
    claims = [{"claim": name, "lower": f"{name}a", "higher": f"{name}b"} for name in pairs]
    values = {
        f"{name}{side}": list(each) for name, both in pairs.items() for side, each in zip("ab", both, strict=True)
    }
    judged = findings.evaluate_claims(results_of(claims, arms(**values)))
    expected = [float(stats.ttest_rel(b, a).pvalue) for a, b in pairs.values()]
    assert [each.p for each in judged] == pytest.approx(expected)
    assert sum(p < 0.05 for p in expected) > 1, "uncorrected, some are confirmed by chance"
    assert [each.verdict for each in judged] == ["confirmed", *["undecided"] * 39]
    assert judged[0].p_holm == pytest.approx(40 * expected[0])
    assert all(int(each.seeds_needed) > 8 for each in judged[1:] if each.seeds_needed.isdigit())


def test_holm_steps_down() -> None:
    # Holm (1979) by hand: 0.01 × 4, 0.013 × 3 (not below the former), 0.03 × 2, 0.9
    assert significance.holm([0.03, 0.01, 0.9, 0.013]) == pytest.approx([0.06, 0.04, 0.9, 0.04])
    assert significance.holm([]) == []
    assert significance.holm([0.6, 0.7]) == [1.0, 1.0]


def test_an_undecided_claim_says_how_many_seeds_would_decide_it() -> None:
    (judged,) = findings.evaluate_claims(results_of(CLAIM, arms(a=around(10, 5.0), b=around(11, 5.0)[::-1])))
    count = int(judged.seeds_needed)
    differences = np.array(around(11, 5.0)[::-1]) - np.array(around(10, 5.0))

    def excludes_zero(n: int) -> bool:
        half = stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / math.sqrt(n)
        return bool(half < differences.mean())

    assert excludes_zero(count)
    assert not excludes_zero(count - 1)
    assert count > 8
    assert findings.in_words(judged)[-1] == f"undecided ({count} seeds would decide it)"
    (never,) = findings.evaluate_claims(results_of(CLAIM, arms(a=EIGHT, b=EIGHT[::-1])))
    assert never.seeds_needed == "more than 1000"


def test_without_a_random_number_claims_are_compared_over_queries() -> None:
    """PGD without a random start is one number however often it is run: the interval is over the people."""
    run = results_of(CLAIM, arms(a=[30, 30], b=[60, 60]), spread=0.0)
    rng = np.random.default_rng(1)
    hits = {"a": rng.random(40) < 0.3, "b": rng.random(40) < 0.6}
    people = np.repeat(np.arange(20), 2)
    outcomes = {
        name: PerQuery(hit.astype(float), hit.astype(float), np.ones(40, bool), identities=people)
        for name, hit in hits.items()
    }
    run = replace(run, cells=[replace(cell, rank_key=cell.attack) for cell in run.cells], per_query=outcomes)
    (judged,) = findings.evaluate_claims(run)
    change = 100.0 * (hits["b"].astype(float) - hits["a"])
    assert judged.difference == pytest.approx(change.mean())
    assert (judged.identities, judged.seeds) == (40, 1), "20 people of each of two data sets"
    assert judged.covers.startswith("40 identities; no random number is in either side")
    # clusters of equal size: the test of the means of the people; two places share market1501 and its people
    weights = {"market1501": 2 / 3, "cuhk03": 1 / 3}
    means = change.reshape(20, 2).mean(axis=1)
    deviations = np.concatenate([weight * 2 * (means - means.mean()) for weight in weights.values()])
    error = math.sqrt(40 / 39 * (deviations**2).sum()) / 40
    assert judged.p == pytest.approx(2 * stats.t.sf(change.mean() / error, 39))
    assert judged.high - judged.difference == pytest.approx(stats.t.ppf(0.975, 39) * error)
    assert judged.verdict == ("confirmed" if judged.p < 0.05 else "undecided")


def test_people_with_many_queries_are_not_counted_as_many_observations() -> None:
    values, clusters = np.tile([[-1.0], [2.0], [0.5]], 50).ravel(), np.repeat([1, 2, 3], 50)
    whole = significance.over_clusters([values], [clusters])
    each = significance.over_clusters([values], [np.arange(150)])
    assert (whole.count, each.count) == (3, 150)
    assert whole.p > 0.5 > 0.01 > each.p
    expected = stats.ttest_1samp([-1.0, 2.0, 0.5], 0.0)
    assert (whole.mean, whole.p) == pytest.approx((0.5, expected.pvalue))


def test_only_places_where_all_seeds_of_both_have_figures_are_compared() -> None:
    run = results_of(CLAIM, arms(a=[10, 11, 12], b=[20, 21, 22]), spread=30)
    gone = [(cell.attack, cell.seed, cell.source) == ("b", 1, VICTIMS[2]) for cell in run.cells]
    run = change_cells(run, gone, status="diverged", rank1=math.nan)
    (judged,) = findings.evaluate_claims(run)
    assert judged.places == 2
    assert judged.difference == pytest.approx(10), "a place that one seed lacks must not shift the others' means"
    (none,) = findings.evaluate_claims(change_cells(run, lambda cell: cell.attack == "b", status="diverged"))
    assert (none.verdict, none.reason) == ("undecided", "no cell succeeded for both")
    assert math.isnan(none.difference)


def test_at_equal_damage_the_curves_are_compared() -> None:
    claim = [{"claim": "kinder", "lower": "plain", "higher": "kind", "measure": "ssim", "at_equal": "mAP"}]
    figures = {
        (name, epsilon, seed): level + seed
        for name, levels in {"plain": (60.0, 20.0), "kind": (80.0, 40.0)}.items()
        for epsilon, level in zip((8, 16), levels, strict=True)
        for seed in range(3)
    }
    (judged,) = findings.evaluate_claims(results_of(claim, figures))
    # at the same epsilon the kind one has 0.2 more, but half of that only because it does less harm
    assert judged.difference == pytest.approx(0.1)
    assert judged.lower == "plain, ε = 8/16"
    apart = {key: value - 70 if key[0] == "plain" else value for key, value in figures.items()}
    (unreached,) = findings.evaluate_claims(results_of(claim, apart))
    assert unreached.reason == "the two never reach the same mAP"
    assert unreached.verdict == "undecided"


def test_published_figures_are_the_printed_ones() -> None:
    lines = published.published()
    assert len(lines) == 103
    found = [line for line in lines if line.table == "2b"]
    assert {(line.epsilon, line.rank1) for line in found} == {(40, 0.0), (20, 0.1), (16, 1.4), (10, 24.4)}
    assert {line.source for line in lines} | {line.target for line in lines} <= set(published.ARCHITECTURES)
    assert sum(line.mAP for line in lines if line.attack == "clean" and line.target_data == "dukemtmc-reid") == (
        pytest.approx(58.1 + 55.2 + 51.8 + 54.6)
    )


def test_the_paper_stands_beside_the_same_model_data_attack_and_epsilon() -> None:
    figures = {("misranking", 16, 0): 5.0, ("misranking", 8, 0): 30.0, ("gap", 16, 0): 9.0, ("other", 16, 0): 9.0}
    run = results_of([], figures)
    cells = {(cell.attack, cell.epsilon, cell.source): cell for cell in run.cells}

    def rank1(attack: str, epsilon: int, victim: str, **changes: Any) -> float | None:
        line = published.result(run, replace(cells[attack, epsilon, victim], **changes))
        return line.rank1 if line else None

    assert rank1("misranking", 16, VICTIMS[0]) == 3.7
    assert rank1("misranking", 16, VICTIMS[1]) == 0.9
    assert rank1("misranking", 16, VICTIMS[2]) == 0.4
    assert rank1("gap", 16, VICTIMS[2]) == 0.9
    assert rank1("misranking", 8, VICTIMS[0]) is None
    assert rank1("other", 16, VICTIMS[0]) is None
    assert rank1("misranking", 16, VICTIMS[0], pixels=4096) is None
    assert rank1("misranking", 16, VICTIMS[0], dataset="plaza", source="resnet50@plaza") is None
    aligned = {"source": "AlignedReID@market1501", "target": "hacnn@cuhk03", "dataset": "cuhk03"}
    assert rank1("misranking", 16, VICTIMS[0], **aligned, relation="cross-both") == 3.6
    swapped = {"source": "AlignedReID@cuhk03", "target": "aligned@market1501", "dataset": "market1501"}
    assert rank1("misranking", 16, VICTIMS[0], **swapped, relation="cross-dataset") == 34.3
    assert rank1("misranking", 16, VICTIMS[0], relation="") is None


def test_no_paper_stands_beside_a_folder_that_only_goes_by_the_name() -> None:
    run = results_of([], {("misranking", 16, 0): 5.0})
    cells = {cell.source: cell for cell in run.cells}

    def told(**genuine: bool) -> list[bool]:
        known = tuple(DataRecord(name, genuine=value) for name, value in genuine.items())
        told = replace(run, record=replace(run.record, datasets=known))
        found = [published.result(told, cells[victim]) for victim in (VICTIMS[0], VICTIMS[2])]
        found += [published.clean_result(told, VICTIMS[1], "market1501")]  # type: ignore[list-item]
        return [each is not None for each in found]

    assert told() == told(market1501=True, cuhk03=True) == [True, True, True]
    assert told(market1501=False, cuhk03=True) == [False, True, False]
    assert told(market1501=True, cuhk03=False) == [True, False, True]


def test_the_report_prints_findings_and_the_paper_s_column() -> None:
    figures = {**arms(misranking=[5, 6, 7], gap=[9, 8, 10]), ("gap", 8, 0): 30.0}
    claims = [
        {"claim": "Mis-Ranking | GAP", "lower": "misranking", "higher": {"attack": "gap", "epsilon": 16}},
    ]
    results = results_of(claims, figures)
    text = markdown.report_text(results, {}, conclude.conclude(results))
    (finding,) = [line for line in text.splitlines() if line.startswith("| Mis-Ranking")]
    assert finding.startswith("| Mis-Ranking \\| GAP | misranking, ε = 16: 6.5 | gap, ε = 16: 9.5 | rank1, white-box |")
    covers = "3 seeds of misranking and gap; victims, data and queries fixed"
    assert finding.endswith(
        f"| 3.0 \\[0.5, 5.5] | {covers} | 3 |  | indicative (misranking has 3 seeds, a verdict needs 8) |"
    )
    row = next(line for line in text.splitlines() if line.startswith("| misranking | 16 |  | resnet50@market1501 |"))
    assert "| 6.0 | 5.0, 6.0, 7.0 |" in row
    assert row.endswith("| 3.7 / 4.4 (IDE (ResNet-50), Table 1) |")
    assert text.count(published.DIFFERENCES) == 1
    elsewhere = replace(results, cells=[replace(cell, attack="other") for cell in results.cells], clean=[])
    assert published.DIFFERENCES not in markdown.report_text(elsewhere, {}, conclude.conclude(elsewhere)), "no value"
    blank = next(line for line in text.splitlines() if line.startswith("| gap | 8 |"))
    assert blank.endswith("|  |")
    clean = next(line for line in text.splitlines() if line.startswith("| clean | 0 |") and "hacnn" in line)
    assert clean.endswith("| 90.6 / 75.3 (HACNN, Table 1) |")
