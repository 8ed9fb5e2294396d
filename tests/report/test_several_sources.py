"""Attacks on several sources at once in tables, heat maps and the audit."""

from __future__ import annotations

import dataclasses

import pytest

from reid_attack_bench.report.analysis import audit
from reid_attack_bench.report.analysis import leaderboard as tables
from reid_attack_bench.report.paper import table
from reid_attack_bench.report.plots import panels
from reid_attack_bench.report.results import CellRow, Results, Setting
from tests.report.test_report import change_cells, clean_of, make_results, row_of

BOTH = "osnet@plaza+mudeep@plaza"
TARGET = "osnet@plaza"


@pytest.fixture(scope="module")
def joined() -> Results:
    """Two models; PGD as if crafted on both at once, and FGSM on each alone."""
    results = make_results(
        models=("osnet", "mudeep"), places=("plaza",), attacks=("fgsm", "pgd"), epsilons=(8,), missing=0
    )
    cells = [
        dataclasses.replace(cell, source=BOTH, access="white-box") if cell.attack == "pgd" else cell
        for cell in results.cells
        if cell.attack == "fgsm" or cell.source == cell.target
    ]
    return dataclasses.replace(results, cells=cells)


def by_pgd(cell: CellRow) -> bool:
    return cell.attack == "pgd"


def left_out(results: Results) -> Results:
    """The same as if PGD had been crafted on all but the target."""
    cells = [
        dataclasses.replace(cell, source=f"all but {cell.target}", access="transfer") if by_pgd(cell) else cell
        for cell in results.cells
    ]
    return dataclasses.replace(results, cells=cells)


def test_a_target_that_is_a_member_counts_as_white_box(joined: Results) -> None:
    for results, kind, other in ((joined, "whitebox", "transfer"), (left_out(joined), "transfer", "whitebox")):
        board = row_of(tables.leaderboard(results, {}), TARGET)
        (cell,) = [cell for cell in results.cells if by_pgd(cell) and cell.target == TARGET]
        assert board[f"pgd_e8_{kind}_mAP"] == cell.value("mAP")
        assert f"pgd_e8_{other}_mAP" not in board or board.isna()[f"pgd_e8_{other}_mAP"]


def test_a_heat_map_has_a_row_for_them(joined: Results) -> None:
    ((panel,),) = panels.panels_of(joined, [Setting("pgd", 8)], "mAP")
    line = panel.row_names.index(BOTH)
    assert panel.own[line].all()
    assert not (panel.values[line] != panel.values[line]).any()
    ((panel,),) = panels.panels_of(left_out(joined), [Setting("pgd", 8)], "mAP")
    line = panel.row_names.index(f"all but {TARGET}")
    assert not panel.own[line].any()
    assert panel.gaps[line][panel.column_names.index("mudeep@plaza")] == "not run"


def test_a_table_marks_what_is_white_box(joined: Results) -> None:
    shown = table.matrix(joined, "plaza", Setting("pgd", 8), "mAP")
    (line,) = [line for line in shown.lines if line.stub == (BOTH,)]
    assert [(value.own, value.best) for value in line.values] == [(True, False), (True, False)]
    shown = table.matrix(left_out(joined), "plaza", Setting("pgd", 8), "mAP")
    values = [value for line in shown.lines[1:] for value in line.values]
    assert [bool(value.text) for value in values] == [True, False, False, True]
    assert not any(value.own for value in values)


def test_the_audit_takes_them_for_transfer_where_the_target_is_left_out(joined: Results) -> None:
    results = change_cells(joined, by_pgd, family="embedding")
    name = "transfer stronger than white-box"
    assert clean_of(results).home.all()
    assert name not in {flag.name for flag in audit.audit(results)}
    assert name in {flag.name for flag in audit.audit(left_out(results)) if flag.victim == TARGET}
