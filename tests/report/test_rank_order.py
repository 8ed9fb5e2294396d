"""Orders of attacks on two data sets: known orders, ties, intervals and words."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from reid_attack_bench.report.analysis import rank_order
from reid_attack_bench.report.analysis.conclude import conclude
from reid_attack_bench.report.html import build
from reid_attack_bench.report.markdown import report_text
from reid_attack_bench.report.per_query import PerQuery
from reid_attack_bench.report.record import RunRecord
from reid_attack_bench.report.results import CellRow, Results, Setting
from tests.report.test_report import cell_row, clean_row, demo_suite, make_results

ATTACKS = ("a", "b", "c", "d", "e", "f")

PEOPLE = 60


def run(levels: dict[str, dict[str, float]], targets: tuple[str, ...] = ("osnet",), **fields: object) -> Results:
    """Attacks with these mAP on each data set, on the target itself; two queries of each of 60 people."""
    rng = np.random.default_rng(0)
    cells: list[CellRow] = []
    per_query: dict[str, PerQuery] = {}
    for place, attacks in levels.items():
        people = np.repeat(np.arange(PEOPLE), 2)
        ease = rng.normal(0, 0.1, PEOPLE)[people]
        for (attack, level), target in itertools.product(attacks.items(), targets):
            key = f"{attack}-{place}-{target}"
            ap = np.clip(level + ease + rng.normal(0, 0.02, len(people)), 0, 1)
            per_query[key] = PerQuery(ap > 0.5, ap, np.arange(len(people)) > 3, people)
            row = cell_row(Setting(attack, 8), target, target, place, rank_key=key, values={"mAP": 100 * ap.mean()})
            cells.append(dataclasses.replace(row, **fields))  # type: ignore[arg-type]
    clean = [clean_row(target, place, {"mAP": 90.0, "rank1": 90.0}) for place in levels for target in targets]
    record = RunRecord(demo_suite(targets, tuple(levels)))
    return Results(record=record, cells=cells, clean=clean, per_query=per_query)


def falling(attacks: tuple[str, ...] = ATTACKS) -> dict[str, float]:
    return {attack: 0.7 - 0.08 * i for i, attack in enumerate(attacks)}


def only(results: Results) -> dict[str, object]:
    (row,) = rank_order.rank_orders(results).to_dict("records")
    return row


def test_equal_orders_agree_though_the_values_differ() -> None:
    row = only(run({"plaza": falling(), "rush": {name: level / 2 for name, level in falling().items()}}))
    assert (row["tau"], row["attacks"], row["pairs"], row["decided"], row["reversed"]) == (1.0, 6, 15, 15, 0)
    assert row["tau_low"] > 0.8
    assert "agree" in rank_order.conclusion(row)
    assert "rendered" in rank_order.conclusion(row)


def test_opposite_orders_are_reversed_pair_by_pair() -> None:
    row = only(run({"plaza": falling(), "rush": falling(ATTACKS[::-1])}))
    assert (row["tau"], row["reversed"]) == (-1.0, 15)
    assert "b is stronger on plaza, a on rush" in row["reversed_pairs"]
    assert "differs in 15 of 15" in rank_order.conclusion(row)


def test_one_exchanged_pair_is_named_and_no_other() -> None:
    row = only(run({"plaza": falling(), "rush": falling(("a", "c", "b", "d", "e", "f"))}))
    assert row["reversed_pairs"] == "c is stronger on plaza, b on rush"
    assert row["tau"] == pytest.approx(13 / 15)


def test_attacks_that_cannot_be_told_apart_are_not_decided() -> None:
    row = only(run({"plaza": dict.fromkeys(ATTACKS, 0.5), "rush": dict.fromkeys(ATTACKS, 0.4)}))
    assert (row["decided"], row["reversed"]) in ((0, 0), (1, 0))
    assert row["tau_low"] < 0 < row["tau_high"]
    assert "undecided" in rank_order.conclusion(row)


@given(some.lists(some.tuples(some.integers(0, 5), some.integers(0, 5)), min_size=2, max_size=9))
def test_tau_is_that_of_scipy_ties_included(values: list[tuple[int, int]]) -> None:
    one, other = np.array(values).T
    left, right = np.triu_indices(len(values), 1)
    found = rank_order.kendall(one[left] - one[right], other[left] - other[right])
    np.testing.assert_allclose(found, stats.kendalltau(one, other).statistic, atol=1e-12)


def test_targets_have_rows_of_their_own_below_the_mean_over_them() -> None:
    table = rank_order.rank_orders(run({"plaza": falling(), "rush": falling()}, targets=("osnet", "resnet50")))
    assert table["target"].tolist() == [rank_order.ALL, "osnet", "resnet50"]
    assert [row["target"] for row in rank_order.shown(table)] == [rank_order.ALL]


def test_only_attacks_that_both_data_sets_have_are_compared() -> None:
    fewer = falling()
    del fewer["c"]
    assert only(run({"plaza": falling(), "rush": fewer}))["attacks"] == 5
    assert rank_order.rank_orders(run({"plaza": falling(), "rush": falling(("a", "b"))})).empty
    assert rank_order.rank_orders(run({"plaza": falling()})).empty


def test_failed_attacks_and_those_that_impersonate_are_left_out() -> None:
    for change in ({"status": "failed"}, {"impersonate": "random"}):
        assert rank_order.rank_orders(run({"plaza": falling(), "rush": falling()}, **change)).empty


def test_transferred_attacks_are_compared_apart() -> None:
    levels = {"plaza": falling(), "rush": falling()}
    own = run(levels)
    moved = [dataclasses.replace(cell, source="other", access="transfer") for cell in own.cells]
    table = rank_order.rank_orders(dataclasses.replace(own, cells=[*own.cells, *moved]))
    assert table["crafted_on"].tolist() == ["target", "others"]


def test_random_changes_are_counted() -> None:
    row = only(run({"plaza": falling(), "rush": falling()}, family="noise"))
    assert row["controls"] == 6
    assert rank_order.in_words(row)[4] == "6 (6 random)"


def test_few_attacks_give_no_conclusion() -> None:
    levels = falling(("a", "b", "c"))
    assert "too few" in rank_order.conclusion(only(run({"plaza": levels, "rush": levels})))


def test_a_photographed_set_is_not_called_rendered() -> None:
    results = run({"plaza": falling(), "market1501": falling()})
    cells = [dataclasses.replace(cell, synthetic=cell.dataset == "plaza") for cell in results.cells]
    assert "rendered" not in rank_order.conclusion(only(dataclasses.replace(results, cells=cells)))


def test_reports_have_the_section_only_with_several_data_sets() -> None:
    heading = "Order of attacks across data sets"
    both = make_results(models=("osnet_x0_25",), missing=0.0)
    one = make_results(models=("osnet_x0_25",), places=("plaza",), missing=0.0)
    concluded = conclude(both)
    text = report_text(both, {}, concluded)
    section = text[text.index(f"## {heading}") : text.index("## Definitions")]
    assert section.count("campus and plaza") == 4  # two budgets, own and transferred attacks
    assert heading in build.page(both, concluded, [])
    assert heading not in report_text(one, {}, conclude(one))


def test_a_report_names_some_of_the_reversed_pairs() -> None:
    (line,) = rank_order.reversals(rank_order.rank_orders(run({"plaza": falling(), "rush": falling(ATTACKS[::-1])})))
    assert line.startswith("Reversed on plaza and rush, ε = 8, crafted on target: b is stronger on plaza, a on rush;")
    assert line.endswith("; 5 more")
