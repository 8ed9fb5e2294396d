"""Mean drop rate over targets: both definitions by hand, and what a report shows of it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from reid_attack_bench.report import rows
from reid_attack_bench.report.analysis.conclude import conclude
from reid_attack_bench.report.analysis.mean_drop import table
from reid_attack_bench.report.markdown import report_text
from reid_attack_bench.report.mean_drop import HEADS, lines
from reid_attack_bench.report.results import Results
from tests.report.test_report import change_cells, make_results, without

CLEAN = {"osnet@plaza": 80.0, "mudeep@plaza": 40.0, "pcb@plaza": 60.0}
ATTACKED = {"osnet@plaza": 20.0, "mudeep@plaza": 30.0, "pcb@plaza": 60.0}


@pytest.fixture
def results() -> Results:
    made = make_results(("osnet", "mudeep", "pcb"), ("plaza",), ("pgd",), (8,), missing=0)
    for target, clean in CLEAN.items():
        after = ATTACKED[target]
        made = change_cells(
            made, lambda cell, target=target: cell.target == target,
            clean_mAP=clean, mAP=after, clean_rank1=clean, rank1=after / 2,
        )  # fmt: skip
    return made


def test_both_definitions_by_hand(results: Results) -> None:
    (row,) = [row for row in rows.rows(table(results)) if row["source"] == "osnet@plaza"]
    assert (row["targets"], row["transfer_targets"], row["missing"]) == (3, 2, 0)
    assert row["ratio_of_means_mAP"] == pytest.approx(100 * (180 - 110) / 180)
    assert row["mean_of_ratios_mAP"] == pytest.approx(100 * (0.75 + 0.25 + 0.0) / 3)
    assert row["ratio_of_means_rank1"] == pytest.approx(100 * (180 - 55) / 180)
    assert row["transfer_ratio_of_means_mAP"] == pytest.approx(100 * (100 - 90) / 100)
    assert row["transfer_mean_of_ratios_mAP"] == pytest.approx(100 * 0.25 / 2)
    assert rows.csv_text(table(results)).splitlines()[1].count(",") == len(table(results).columns) - 1


def test_a_target_that_found_nothing_and_one_without_values(results: Results) -> None:
    gone = without(results, lambda cell: cell.target == "pcb@plaza")
    row = rows.rows(table(gone))[0]
    assert (row["targets"], row["missing"]) == (2, 1)
    nothing = change_cells(results, lambda cell: cell.target == "pcb@plaza", clean_mAP=0.0, mAP=0.0)
    row = rows.rows(table(nothing))[0]
    assert row["ratio_of_means_mAP"] == pytest.approx(100 * 70 / 120)
    assert math.isnan(row["mean_of_ratios_mAP"])


def test_attacks_on_all_but_their_target_are_one(results: Results) -> None:
    cells = [
        replace(cell, source=f"all but {cell.target}", access="transfer")
        for cell in results.cells
        if cell.source == cell.target
    ]
    (row,) = rows.rows(table(replace(results, cells=cells)))
    assert (row["source"], row["targets"], row["transfer_targets"]) == ("all but the target", 3, 3)
    assert [line[5] for line in lines(table(replace(results, cells=cells)))] == ["transfer: 3"]


def test_a_report_shows_it_for_several_targets(results: Results) -> None:
    shown = [line for line in lines(table(results)) if line[3] == "osnet@plaza"]
    assert [len(line) for line in shown] == [len(HEADS)] * 2
    assert [line[5] for line in shown] == ["all: 3", "transfer: 2"]
    assert shown[0][6:8] == ["38.9", "33.3"]
    assert "## Mean drop rate (mDR)" in report_text(results, {}, conclude(results))
    one = make_results(("osnet",), ("plaza",), ("pgd",), (8,), missing=0)
    assert "Mean drop rate (mDR)" not in report_text(one, {}, conclude(one))
