"""Costs of attacks: settings that differ in queries or goal stay apart, the plot of mAP over passes and queries."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.report import rows
from reid_attack_bench.report.analysis import leaderboard as tables
from reid_attack_bench.report.analysis.audit import audit
from reid_attack_bench.report.analysis.compare import compare, name_of
from reid_attack_bench.report.costs import table
from reid_attack_bench.report.plots import cost
from reid_attack_bench.report.results import CellRow, CostRow, Results, Setting
from reid_attack_bench.suites.suite import AttackEntry
from tests.report.test_report import change_cells, make_results

SQUARE = [ThreatModel(sees="embedding", queries=queries) for queries in (100, 1000)]


@pytest.mark.parametrize(
    ("threat", "budget", "variant"),
    [
        (ThreatModel(), "e8", "a"),
        (ThreatModel(4, 500, "gallery"), "e4_k500_gallery", "a, 500 pixels, gallery attacked"),
        (SQUARE[1], "e8_q1000", "a, 1,000 queries"),
        (
            ThreatModel(sees="ranking", queries=50, top=20, impersonate="random"),
            "e8_q50_top20_to_random",
            "a, 50 queries, 20 retrieved, to random identity",
        ),
        (ThreatModel(impersonate="hardest"), "e8_to_hardest", "a, to hardest identity"),
    ],
)
def test_a_threat_model_has_one_name(threat: ThreatModel, budget: str, variant: str) -> None:
    setting = Setting.of("a", threat)
    assert (setting.budget, setting.variant) == (budget, variant)


@pytest.fixture(scope="module")
def results() -> Results:
    """pgd of 1 and 20 steps by one plug-in, noise, and square with two numbers of queries."""
    made = make_results(("osnet", "mudeep"), ("plaza",), ("noise", "fgsm", "pgd", "odfa"), (8,), missing=0)
    passes = {"noise": 0.0, "fgsm": 1.0, "pgd": 20.0}
    cells: list[CellRow] = []
    for cell in made.cells:
        if cell.attack in passes:
            count = passes[cell.attack]
            values = {"forward_passes": count, "backward_passes": count, "queries_per_image": 0.0}
            cells.append(dataclasses.replace(cell, values={**cell.values, **values}))
            continue
        access = "query" if cell.own else "transfer"
        for threat in SQUARE:
            values = {"forward_passes": 90.0, "backward_passes": 0.0, "queries_per_image": 0.9 * (threat.queries or 0)}
            asked = {"attack": "square", "access": access, "sees": threat.sees, "query_budget": threat.queries}
            cells.append(dataclasses.replace(cell, values={**cell.values, **values}, **asked))
    uses = {"noise": ("noise", (ThreatModel(),)), "fgsm": ("gradient", (ThreatModel(),))}
    uses |= {"pgd": ("gradient", (ThreatModel(),)), "square": ("square", tuple(SQUARE))}
    entries = tuple(AttackEntry(label, use, {}, threats) for label, (use, threats) in uses.items())
    suite = dataclasses.replace(made.record.suite, attacks=entries)
    return dataclasses.replace(made, cells=cells, record=dataclasses.replace(made.record, suite=suite))


def test_cells_of_two_budgets_are_not_merged(results: Results) -> None:
    assert {setting.budget for setting in results.settings} == {"e8", "e8_q100", "e8_q1000"}
    assert len(rows.over_seeds(results.cells)) == len(results.cells)
    board = tables.leaderboard(results)
    assert {"square_e8_q100_query_mAP", "square_e8_q1000_query_mAP", "pgd_e8_whitebox_mAP"} <= set(board.columns)
    table = compare(results, results)
    assert table["changed"].sum() == 0
    assert len(table) == len(results.clean) * 2 + len(results.cells)  # clean and worst case of each victim
    asked = table[table["attack"] == "square"]
    assert sorted(set(asked["query_budget"])) == [100, 1000]
    assert "square, 1,000 queries" in name_of(rows.rows(asked[asked["query_budget"] == 1000])[0])


def test_attacks_that_impersonate_are_no_sign_of_masked_gradients(results: Results) -> None:
    weak = change_cells(results, lambda cell: cell.attack == "pgd", family="embedding", steps=20)
    weak = change_cells(weak, lambda cell: cell.attack == "fgsm", family="embedding", steps=1)
    swapped = [
        dataclasses.replace(cell, rank_key=cell.rank_key.replace("pgd", "noise")) if cell.attack == "pgd" else cell
        for cell in weak.cells
    ]
    weak = dataclasses.replace(weak, cells=swapped)
    assert any(flag.severity == "red" for flag in audit(weak))
    aimed = change_cells(weak, lambda cell: cell.attack == "pgd", impersonate="random")
    assert not any("pgd" in flag.evidence for flag in audit(aimed))


def test_plot_of_map_over_passes_and_queries(results: Results, tmp_path: Path) -> None:
    written = {path.name for path in cost.costs(results, tmp_path)}
    assert written == {f"cost_{kind}.{end}" for kind in ("passes", "queries") for end in ("png", "pdf")}
    points = {point.setting.attack: point for point in cost._points(results, "passes")}
    assert {name: point.cost for name, point in points.items()} == {"noise": 0, "fgsm": 2, "pgd": 40}
    own = [cell.value("mAP") for cell in results.cells if cell.attack == "pgd" and cell.own]
    assert points["pgd"].mAP == pytest.approx(sum(own) / len(own))
    assert points["pgd"].plugin == points["fgsm"].plugin == "gradient"
    assert [point.cost for point in cost._points(results, "queries")] == [90, 900]


def test_no_plot_of_costs_that_nobody_counted(tmp_path: Path) -> None:
    assert cost.costs(make_results(("osnet",), ("plaza",), ("pgd",), (8,), missing=0), tmp_path) == []


def test_costs_are_sorted_and_missing_values_empty() -> None:
    row = CostRow(
        "pgd", 8, None, "query", "gradients", None, None, "", "b", "plaza", 0, 4, 2.0, 2.0, 0.0, 0.25, None, None, None,
        "key",
    )  # fmt: skip
    other = dataclasses.replace(row, source="a", images=None, seconds_per_image=None)
    lines = rows.csv_text(table([row, dataclasses.replace(row, epsilon=4), other])).splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == ["4", "8", "8"]
    assert lines[2] == "pgd,8,,query,gradients,,,,a,plaza,0,,2.00,2.00,0.00,,,,,key"
    assert lines[3] == "pgd,8,,query,gradients,,,,b,plaza,0,4,2.00,2.00,0.00,0.25,,,,key"
