"""Findings over seeds, and the paper's figures beside ours."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from reid_attack_bench.report import markdown
from reid_attack_bench.report.analysis import conclude, findings, published
from reid_attack_bench.report.record import RunRecord
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


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([10, 11, 12], [20, 22, 21], "confirmed"),
        ([20, 22, 21], [10, 11, 12], "not confirmed"),
        ([10, 20, 12], [11, 14, 19], "undecided"),
        ([0, 0, 0], [0, 0, 0], "undecided"),
        ([10], [20], "undecided"),
    ],
)
def test_verdicts(a: list[float], b: list[float], verdict: str) -> None:
    (judged,) = findings.evaluate_claims(results_of(CLAIM, arms(a=a, b=b)))
    assert judged.verdict == verdict
    assert judged.difference == pytest.approx(np.mean(b) - np.mean(a))
    assert (judged.seeds, judged.places) == (len(a), 3)
    assert bool(judged.reason) == (len(a) == 1)


def test_the_interval_is_student_s_over_paired_seeds() -> None:
    a, b = [10.0, 13.0, 12.0, 9.0], [15.0, 16.0, 19.0, 12.0]
    (judged,) = findings.evaluate_claims(results_of(CLAIM, arms(a=a, b=b)))
    expected = stats.ttest_rel(b, a).confidence_interval(0.95)
    assert (judged.low, judged.high) == pytest.approx((expected.low, expected.high))


def test_one_seed_stands_against_every_seed_of_the_other() -> None:
    (judged,) = findings.evaluate_claims(results_of(CLAIM, arms(a=[10, 11, 12], b=[20])))
    assert judged.seeds == 3
    assert judged.difference == pytest.approx(9)
    assert judged.verdict == "confirmed"


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


def test_the_report_prints_findings_and_the_paper_s_column() -> None:
    figures = {**arms(misranking=[5, 6, 7], gap=[9, 8, 10]), ("gap", 8, 0): 30.0}
    claims = [
        {"claim": "Mis-Ranking | GAP", "lower": "misranking", "higher": {"attack": "gap", "epsilon": 16}},
    ]
    results = results_of(claims, figures)
    text = markdown.report_text(results, {}, conclude.conclude(results))
    (finding,) = [line for line in text.splitlines() if line.startswith("| Mis-Ranking")]
    assert finding.startswith("| Mis-Ranking \\| GAP | misranking, ε = 16: 6.5 | gap, ε = 16: 9.5 | rank1, white-box |")
    assert finding.endswith("| 3.0 \\[0.5, 5.5] | 3 | 3 | confirmed |")
    row = next(line for line in text.splitlines() if line.startswith("| misranking | 16 |  | resnet50@market1501 |"))
    assert "| 6.0 | 5.0, 6.0, 7.0 |" in row
    assert row.endswith("| 3.7 / 4.4 (IDE (ResNet-50), Table 1) |")
    blank = next(line for line in text.splitlines() if line.startswith("| gap | 8 |"))
    assert blank.endswith("|  |")
    clean = next(line for line in text.splitlines() if line.startswith("| clean | 0 |") and "hacnn" in line)
    assert clean.endswith("| 90.6 / 75.3 (HACNN, Table 1) |")
