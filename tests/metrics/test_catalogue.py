"""The catalogue of measures: columns of published results, and a new metric from its file to every output."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from reid_attack_bench.metrics import catalogue
from reid_attack_bench.metrics.catalogue import ImagePair, Measure
from reid_attack_bench.metrics.visibility import measures
from reid_attack_bench.report.analysis.conclude import conclude
from reid_attack_bench.report.analysis.leaderboard import matrix
from reid_attack_bench.report.html.build import page
from reid_attack_bench.report.markdown import definitions, report_text
from reid_attack_bench.report.results import cell_columns, clean_columns
from reid_attack_bench.report.rows import csv_text
from tests.report.test_report import change_cells, make_results

RESULTS = Path(__file__).parents[2] / "results"


@pytest.mark.parametrize(("table", "columns"), [("matrix.csv", cell_columns), ("clean.csv", clean_columns)])
def test_columns_are_those_of_published_results(table: str, columns) -> None:
    with (RESULTS / "quick" / table).open() as file:
        published = next(csv.reader(file))
    assert published == [column for column in columns() if column in published]  # columns may have been added since


def test_columns_lead_to_their_measure() -> None:
    for column, name in (
        ("worst_e8_mAP_low", "mAP"), ("drop_rank10", "rank10"), ("rank1_change_high", "rank1"), ("ms_ssim", "ms_ssim"),
        ("pgd_e8_k500_transfer_rank1", "rank1"), ("twin_worst_mAP", "mAP"), ("rejected", "rejected"),
        ("clean_mAP_trapezoid", "mAP_trapezoid"), ("relative_drop_mAP", "relative_drop_mAP"), ("drop_mAP", "mAP"),
        ("success1_low", "success1"), ("success10", "success10"), ("drop_tpr_fpr1e3", "tpr_fpr1e3"),
        ("transfer_mean_of_ratios_rank1", "rank1"),
    ):  # fmt: skip
        measure = catalogue.measure_of(column)
        assert measure is not None
        assert measure.name == name
    for column in ("rank", "epsilon", "changed", "worst_e8_missing", "rank1x"):
        assert catalogue.measure_of(column) is None


def test_the_trapezoid_rule_is_claimed_and_ordered_by_nowhere() -> None:
    assert "mAP_trapezoid" in clean_columns()
    assert {"clean_mAP_trapezoid", "mAP_trapezoid", "drop_mAP_trapezoid"} <= set(cell_columns())
    assert not [name for name in (*catalogue.comparable(), *catalogue.ranking_names()) if "trapezoid" in name]


@pytest.mark.e2e
def test_a_new_metric_is_one_row_of_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    def brightness(pair: ImagePair) -> dict:
        return {"brightness": (pair.after - pair.before).mean(dim=(1, 2, 3)).abs()}

    toy = Measure("brightness", "Brightness", "mean change of brightness", "visibility", digits=2, compute=brightness)
    monkeypatch.setattr(catalogue, "CATALOGUE", (*catalogue.CATALOGUE, toy))

    clean = np.full((2, 64, 32, 3), 100, np.uint8)
    assert measures(clean, clean + 51)["brightness"] == pytest.approx([0.2, 0.2])

    results = make_results(("osnet", "mudeep"), ("plaza",), ("pgd",), (8,), missing=0)
    results = change_cells(results, lambda _: True, brightness=0.25)
    header, first, *_ = csv.reader(csv_text(matrix(results)).splitlines())
    assert first[header.index("brightness")] == "0.2500"
    concluded = conclude(results)
    assert "**Brightness**: mean change of brightness." in report_text(results, {}, concluded)
    text = page(results, concluded, definitions())
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert {"id": "brightness", "title": "Brightness", "digits": 2, "percent": False, "group": "visibility"} in data[
        "measures"
    ]
    assert data["cells"][0][data["columns"].index("brightness")] == 0.25
    assert "brightness" in catalogue.comparable()
