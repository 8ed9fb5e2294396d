"""Attacks that impersonate in the reports: a section and columns where a cell has them, and none elsewhere."""

from __future__ import annotations

import json

import pytest

from reid_attack_bench.metrics import catalogue
from reid_attack_bench.report import targeted
from reid_attack_bench.report.analysis import leaderboard as tables
from reid_attack_bench.report.analysis.conclude import conclude
from reid_attack_bench.report.html.build import page
from reid_attack_bench.report.markdown import definitions, report_text
from reid_attack_bench.report.paper.write import write_tables
from reid_attack_bench.report.results import Results
from reid_attack_bench.text import file_name
from tests.report.test_report import change_cells, make_results


@pytest.fixture(scope="module")
def hiding() -> Results:
    return make_results(("osnet", "mudeep"), ("plaza",), ("noise", "pgd"), (8,), missing=0)


@pytest.fixture(scope="module")
def aiming(hiding: Results) -> Results:
    values = {name: 10.0 + place for place, name in enumerate(catalogue.targeted_columns())}
    return change_cells(hiding, lambda cell: cell.attack == "pgd", impersonate="random", **values)


def data_of(results: Results) -> dict:
    text = page(results, conclude(results), definitions(results))
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def test_a_section_of_the_report_is_there_for_those_cells_alone(hiding: Results, aiming: Results) -> None:
    assert targeted.lines(hiding) == []
    assert "Impersonation" not in report_text(hiding, {}, conclude(hiding))
    lines = targeted.lines(aiming)
    assert len(lines) == 4  # sources × targets
    assert all(len(line) == len(targeted.heads()) for line in lines)
    shown = dict(zip(targeted.heads(), lines[0], strict=True))
    assert (shown["attack"], shown["clean targeted Rank-1"]) == ("pgd, to random identity", "10.0")
    assert shown["Targeted Rank-1"].startswith("14.0 [")
    text = report_text(aiming, {}, conclude(aiming))
    assert "## Impersonation" in text
    assert "**ASR@5**" in text
    assert "**ASR@5**" not in "".join(definitions())


def test_the_page_and_the_tables_have_them(hiding: Results, aiming: Results, tmp_path) -> None:
    data = data_of(aiming)
    assert [entry["impersonate"] for entry in data["settings"]] == ["", "random"]
    column = data["columns"].index("asr10")
    assert {cell[column] for cell in data["cells"]} == {None, 20.0}
    assert all(entry["impersonate"] == "" for entry in data_of(hiding)["settings"])
    csv = tables.matrix(aiming).set_index("attack")
    assert csv.loc["pgd", "target_mAP"].eq(17.0).all()
    assert csv.loc["noise", catalogue.targeted_columns()].isna().all(axis=None)
    board = tables.leaderboard(aiming)
    assert {"pgd_e8_to_random_whitebox_mAP", "pgd_e8_to_random_transfer_mAP"} <= set(board.columns)
    # an attack that impersonates hides too, so the worst case counts it
    assert board["worst_e8_mAP"].equals(tables.leaderboard(hiding)["worst_e8_mAP"])
    written = {path.name for path in write_tables(aiming, board, tmp_path)}
    assert file_name("matrix", "plaza", "pgd", "e8_to_random") + ".tex" in written
