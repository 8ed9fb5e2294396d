"""Transferred attacks against random changes of the same budget, in tables, plots, pages and findings."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.metrics.bootstrap import interval
from reid_attack_bench.report import markdown, rows, transfer
from reid_attack_bench.report.analysis import conclude, controls, findings
from reid_attack_bench.report.analysis import leaderboard as tables
from reid_attack_bench.report.paper import write as paper
from reid_attack_bench.report.paper.markdown import to_markdown
from reid_attack_bench.report.paper.table import NOT_BELOW, matrix
from reid_attack_bench.report.plots import curves
from reid_attack_bench.report.results import CONTROL_COLUMNS, CellRow, Results, Setting, cell_columns
from reid_attack_bench.suites.suite import CONTROL, AttackEntry, Claim, Contender
from tests.report.test_html import Visit, data_of, page_of
from tests.report.test_report import QUERIES, change_cells, make_results, with_seeds, with_suite

BLOCKS = "random blocks of 16×8"
PAIR = Setting("metric_fgsm", 8)
IDENTITIES = np.arange(QUERIES) // 3


def as_control(results: Results, attack: str, label: str) -> Results:
    """The cells of `attack` as those of a control: the same images for every source, so the same values on a target."""
    first: dict[tuple[str, str, int], CellRow] = {}
    cells = []
    for cell in results.cells:
        if cell.attack == attack:
            same = first.setdefault((cell.target, cell.dataset, cell.epsilon), cell)
            cell = dataclasses.replace(cell, attack=label, family="noise", needs=(), values=same.values,
                                       rank_key=same.rank_key)  # fmt: skip
        cells.append(cell)
    return dataclasses.replace(results, cells=cells)


@pytest.fixture(scope="module")
def run() -> Results:
    """Random blocks take a little more than metric_fgsm does on other models, and much less than misranking."""
    made = make_results(models=("osnet", "mudeep"), places=("plaza",), missing=0,
                        attacks=("noise", "fgsm", "metric_fgsm", "misranking"))  # fmt: skip
    per_query = {key: dataclasses.replace(each, identities=IDENTITIES) for key, each in made.per_query.items()}
    made = as_control(as_control(dataclasses.replace(made, per_query=per_query), "noise", "plain"), "fgsm", "blocks")
    threats = (ThreatModel(4), ThreatModel(8))
    return with_suite(made, attacks=(
        AttackEntry("plain", "noise", {}, threats),
        AttackEntry("blocks", "noise", {"blocks": [16, 8], "values": "corner"}, threats),
        AttackEntry("metric_fgsm", "metric_fgsm", {}, threats),
        AttackEntry("misranking", "misranking", {}, threats),
    ))  # fmt: skip


def cell(results: Results, attack: str, source: str, target: str, epsilon: int = 8) -> CellRow:
    wanted = (attack, f"{source}@plaza", f"{target}@plaza", epsilon)
    return next(c for c in results.cells if (c.attack, c.source, c.target, c.epsilon) == wanted)


def test_the_best_control_is_the_one_with_the_lowest_map(run: Results) -> None:
    best = controls.best_control(run, "osnet@plaza", "plaza", 8)
    assert best is not None
    assert best.attack == "blocks"
    mine = [c for c in run.cells if controls.is_control(c) and (c.target, c.epsilon) == ("osnet@plaza", 8)]
    assert best.value("mAP") == min(c.value("mAP") for c in mine)
    assert controls.best_control(run, "osnet@plaza", "plaza", 64) is None
    assert controls.best_control(run, "osnet@plaza", "plaza", 8, pixels=100) is None, "another budget"
    assert controls.control_names(run) == {"blocks": BLOCKS, "plain": "plain"}


def test_transfers_is_said_below_the_best_control_only(run: Results) -> None:
    found = controls.find(run)
    strong, weak = (cell(run, name, "mudeep", "osnet") for name in ("misranking", "metric_fgsm"))
    random = controls.best_control(run, "osnet@plaza", "plaza", 8)
    assert random is not None
    for each, transfers in ((strong, True), (weak, False)):
        over = found.cells[each.place, each.seed]
        ap, valid = (run.per_query[each.rank_key].ap, run.per_query[each.rank_key].valid)
        change = 100 * (ap - run.per_query[random.rank_key].ap)[valid]
        assert over.over == pytest.approx(change.mean())
        expected = interval(change, IDENTITIES[valid], seed=run.seed, exact=False)
        assert (over.low, over.high) == pytest.approx(expected)
        assert over.transfers == transfers
    assert found.verdict(strong) == "transfers"
    assert found.verdict(weak) in (f"no better than {BLOCKS}", f"worse than {BLOCKS}")
    assert found.verdict(cell(run, "misranking", "osnet", "osnet")) == "", "own cells are not compared"
    assert found.verdict(random) == ""


def test_columns_of_the_matrix(run: Results, tmp_path: Path) -> None:
    rows.write_csv(tables.matrix(run), tmp_path / "matrix.csv")
    table = pd.read_csv(tmp_path / "matrix.csv", dtype=str, keep_default_na=False)
    assert list(table.columns) == cell_columns()
    assert len(table) == len(run.cells), "every control is kept"
    compared = table[(table["access"] == "transfer") & ~table["attack"].isin(["plain", "blocks"])]
    assert set(compared["control"]) == {"blocks"}
    assert set(compared["transfers"]) == {"true", "false"}
    assert (compared["transfers"] == "true").equals(compared["over_control_mAP_high"].astype(float) < 0)
    at = {(c.target, c.epsilon): c for c in run.cells if c.attack == "blocks"}
    for _, row in compared.iterrows():
        assert float(row["control_mAP"]) == pytest.approx(at[row["target"], int(row["epsilon"])].value("mAP"), abs=0.01)
    others = table.drop(compared.index)
    assert (others[list(CONTROL_COLUMNS)] == "").all(axis=None)


def test_without_a_control_no_claim_is_made(run: Results) -> None:
    bare = change_cells(run, lambda c: controls.is_control(c) and c.epsilon == 8, status="failed", values={})
    found = controls.find(bare)
    assert found.verdict(cell(bare, "misranking", "mudeep", "osnet")) == controls.NO_CONTROL
    assert found.verdict(cell(bare, "misranking", "mudeep", "osnet", epsilon=4)) != controls.NO_CONTROL
    line = next(line for line in transfer.lines(bare, found) if line[:2] == ["misranking", "8"])
    assert line[-3:] == [controls.NO_CONTROL, "", "no claim"]
    few = change_cells(run, lambda c: c.attack == "misranking", pixels=100)
    assert controls.find(few).verdict(cell(few, "misranking", "mudeep", "osnet")) == controls.NO_CONTROL
    claims = claim(few)
    assert (claims.verdict, claims.reason) == ("undecided", controls.NO_CONTROL)


def test_the_mean_over_seeds_is_compared(run: Results) -> None:
    seeded = with_seeds(run, "misranking", {0: 0.0, 1: 0.0})
    found = controls.find(seeded)
    once = cell(run, "misranking", "mudeep", "osnet")
    assert found.means[once.place].over == pytest.approx(controls.find(run).means[once.place].over)
    assert {seed for place, seed in found.cells if place == once.place} == {0, 1}


def test_a_different_number_of_queries_is_told(run: Results) -> None:
    one = cell(run, "misranking", "mudeep", "osnet")
    valid = np.ones(QUERIES, bool)
    per_query = {**run.per_query, one.rank_key: dataclasses.replace(run.per_query[one.rank_key], valid=valid)}
    with pytest.raises(Exception, match="the data set changed between misranking and blocks"):
        controls.find(dataclasses.replace(run, per_query=per_query))


def test_the_best_block_size_of_each_epsilon(run: Results) -> None:
    lines = controls.by_epsilon(run)
    assert [(line.epsilon, line.name, line.best) for line in lines] == [
        (4, BLOCKS, True), (4, "plain", False), (8, BLOCKS, True), (8, "plain", False),
    ]  # fmt: skip
    targets = {c.target: c.value("mAP") for c in run.cells if (c.attack, c.epsilon) == ("blocks", 8)}
    assert lines[2].mAP == pytest.approx(np.mean(list(targets.values())))
    assert lines[2].targets == len(targets) == 2


def test_leaderboard_has_the_best_control(run: Results) -> None:
    board = tables.leaderboard(run).set_index("victim")
    for victim in ("osnet@plaza", "mudeep@plaza"):
        best = controls.best_control(run, victim, "plaza", 8)
        assert best is not None
        assert board.loc[victim, "best_control_e8_mAP"] == best.value("mAP")
        assert board.loc[victim, "best_control_e8_rank1"] == best.value("rank1")
    none = tables.leaderboard(change_cells(run, controls.is_control, family=""))
    assert not [name for name in none.columns if name.startswith("best_control")]


def test_report_lists_one_line_for_all_controls(run: Results) -> None:
    run = with_suite(run, relations=("cross-model",))
    run = change_cells(run, lambda c: not c.own, relation="cross-model")
    text = markdown.report_text(run, {}, conclude.conclude(run))
    lines = text.splitlines()
    section = text[text.index("## Transfer against controls") : text.index("## Mean drop rate")]
    (strong,) = [line for line in section.splitlines() if line.startswith("| misranking | 8 |")]
    assert strong.endswith("| 2 of 2 |")
    assert BLOCKS in strong
    assert f"| plaza | 8 | {BLOCKS} | 2 |" in section
    assert "for which no model is needed" in section
    assert not [line for line in lines if line.startswith(("| blocks |", "| plain |"))]
    listed = [line for line in lines if line.startswith(f"| best control ({BLOCKS}) |")]
    assert len(listed) == 4, "two targets at two epsilons"
    (weak,) = [line for line in lines if line.startswith("| metric\\_fgsm | 8 |  | mudeep@plaza | osnet@plaza |")]
    assert f"no better than {BLOCKS}" in weak or f"worse than {BLOCKS}" in weak


def test_paper_tables_have_a_row_of_the_best_control(run: Results, tmp_path: Path) -> None:
    table = matrix(run, "plaza", PAIR, "mAP")
    assert table.lines[1].stub == (f"best control ({BLOCKS})",)
    best = [controls.best_control(run, target, "plaza", 8) for target in table.heads]
    assert [value.text for value in table.lines[1].values] == [f"{c.value('mAP'):.1f}" for c in best if c]
    marked = {(line.stub, i) for line in table.lines for i, value in enumerate(line.values) if NOT_BELOW in value.notes}
    means = controls.find(run).means
    weak = {(place[1], place[2]) for place, over in means.items() if place[0] == PAIR and not over.transfers}
    assert marked == {((source,), table.heads.index(target)) for source, target in weak}
    assert len(marked) in (1, 2)
    assert "Best control: random changes" in to_markdown(table)
    strong = matrix(run, "plaza", Setting("misranking", 8), "mAP")
    assert not strong.notes
    concluded = conclude.conclude(run)
    written = paper.write_tables(run, concluded.board, tmp_path, concluded.controls)
    assert not [path.name for path in written if "blocks" in path.name or "plain" in path.name]
    assert not [line for line in paper.index_lines(run) if "blocks" in line]
    only = dataclasses.replace(run, cells=[c for c in run.cells if controls.is_control(c)])
    assert len(paper.index_lines(only)) > 6, "a run of controls alone shows them"


def test_curves_show_the_best_control(run: Results) -> None:
    figure = curves.curves_figure(run, "osnet@plaza", "plaza")
    for axes, metric in zip(figure.axes, ("rank1", "mAP"), strict=True):
        (dotted,) = [line for line in axes.lines if line.get_linestyle() == ":"]
        wanted = [controls.best_control(run, "osnet@plaza", "plaza", epsilon) for epsilon in (4, 8)]
        assert list(dotted.get_ydata()[1:]) == [c.value(metric) for c in wanted if c]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "best control (random, no model)" in names
    assert not {"plain", "blocks"} & set(names)


def test_page_has_the_best_control_of_each_cell(run: Results) -> None:
    page = page_of(run)
    data = data_of(page)
    assert {each["name"] for each in data["controls"]} == {BLOCKS}
    assert len(data["controls"]) == 4
    column = {name: i for i, name in enumerate(data["columns"])}
    compared = [row for row in data["cells"] if row[column["over_control_mAP"]] is not None]
    assert len(compared) == 2 * 2 * 2, "two attacks, two epsilons, two pairs of models"
    assert "Transfer against controls" in page
    bare = page_of(change_cells(run, controls.is_control, family=""))
    assert data_of(bare)["controls"] == []


def test_the_matrix_of_the_page_marks_what_is_no_better_than_random(run: Results, browser, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page_of(run))
    visit = Visit(browser, (tmp_path / "report.html").as_uri())
    weak = [over for place, over in controls.find(run).means.items() if place[0] == PAIR and not over.transfers]
    for setting, marks in (("metric_fgsm, ε = 8", len(weak)), ("misranking, ε = 8", 0)):
        visit.page.select_option("#m-setting", label=setting)
        assert visit.page.locator("#heat td.weak").count() == marks
        names = visit.page.eval_on_selector_all("#heat tbody th", "heads => heads.map(head => head.innerText)")
        assert names[:2] == ["clean (no attack)", "best control"]
        row = visit.page.eval_on_selector_all("#heat tbody tr:nth-child(2) td", "cells => cells.map(c => c.innerText)")
        best = [controls.best_control(run, f"{name}@plaza", "plaza", 8) for name in ("mudeep", "osnet")]
        assert row == [f"{each.value('mAP'):.1f}" for each in best if each]
        assert f"{2 - marks} of 2 transferred cells leave less mAP" in visit.page.inner_text("#matrix-control")
    visit.page.select_option("#m-setting", label="blocks, ε = 8")
    assert visit.page.locator("#heat tbody tr").count() == 3, "a control is not compared with itself"
    visit.page.select_option("#m-setting", label="metric_fgsm, ε = 8")
    series = visit.page.eval_on_selector_all("#points tbody td:first-child", "cells => cells.map(c => c.textContent)")
    assert {"best control"} == {name for name in series if name in ("best control", "blocks", "plain")}
    assert series.count("best control") == 2, "the best at each of two epsilons"
    visit.page.locator("#heat td.weak").first.click()
    assert BLOCKS in visit.page.inner_text("#details")
    visit.quiet()


def claim(results: Results, seeds: tuple[int, ...] = (7,)) -> findings.ClaimResult:
    """The finding that misranking transfers between models."""
    sides = Contender("misranking", (ThreatModel(8),)), Contender(CONTROL, (ThreatModel(8),))
    if any(c.pixels for c in results.cells):
        sides = Contender("misranking", (ThreatModel(8, 100),)), Contender(CONTROL, (ThreatModel(8, 100),))
    wanted = Claim("Mis-Ranking transfers", *sides, measure="mAP", relation="cross-model")
    results = change_cells(results, lambda c: not c.own, relation="cross-model")
    (judged,) = findings.evaluate_claims(with_suite(results, findings=(wanted,)))
    return judged


def test_that_an_attack_transfers_is_a_finding(run: Results) -> None:
    eight = with_seeds(run, "misranking", {seed: 0.2 * seed for seed in range(8)})
    judged = claim(eight)
    assert judged.higher == f"best control ({BLOCKS}), ε = 8"
    assert (judged.verdict, judged.seeds, judged.places) == ("confirmed", 8, 2)
    best = [controls.best_control(run, f"{name}@plaza", "plaza", 8) for name in ("osnet", "mudeep")]
    assert judged.higher_mean == pytest.approx(np.mean([c.value("mAP") for c in best if c]))
    assert judged.difference == pytest.approx(judged.higher_mean - judged.lower_mean)
    # without a random number in the attack: over the people
    same = with_seeds(run, "misranking", {0: 0.0, 1: 0.0})
    judged = claim(same)
    assert judged.identities == len(np.unique(IDENTITIES))
    assert judged.verdict == "confirmed"
    over = controls.find(run).means
    mean = np.mean(
        [over[cell(run, "misranking", *pair).place].over for pair in (("osnet", "mudeep"), ("mudeep", "osnet"))]
    )
    assert judged.difference == pytest.approx(-mean)
    assert claim(run).verdict == "indicative", "one seed"
    assert math.isnan(claim(change_cells(run, controls.is_control, family="")).difference)


def test_a_finding_takes_the_control_that_is_lowest_in_its_measure(run: Results) -> None:
    """Else a control that is second by mAP would leave a lower Rank-1 than the "best" one."""
    run = change_cells(run, lambda c: c.attack == "plain", rank1=1.0)
    run = change_cells(with_seeds(run, "misranking", {0: 0.0, 1: 0.5}), lambda c: not c.own, relation="cross-model")
    sides = Contender("misranking", (ThreatModel(8),)), Contender(CONTROL, (ThreatModel(8),))
    claims = tuple(Claim("x", *sides, measure=name, relation="cross-model") for name in ("rank1", "mAP"))
    rank1, mean = findings.evaluate_claims(with_suite(run, findings=claims))
    assert rank1.higher == "best control (plain), ε = 8"
    assert rank1.higher_mean == pytest.approx(1.0)
    assert mean.higher == f"best control ({BLOCKS}), ε = 8"
