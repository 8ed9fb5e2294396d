"""What a reader sees first: equal budgets, honest banners, and data sets that an attack was fitted on."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from reid_attack_bench.execute.events import Outcome
from reid_attack_bench.jobs import manifest
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.report import labels, terminal
from reid_attack_bench.report.analysis import compare, leaderboard
from reid_attack_bench.report.analysis.conclude import conclude
from reid_attack_bench.report.html.build import page
from reid_attack_bench.report.markdown import report_text
from reid_attack_bench.report.paper import table as paper
from reid_attack_bench.report.plots.heat_maps import overview_figure
from reid_attack_bench.report.plots.panels import panels_of
from reid_attack_bench.report.plots.visibility import visibility_figure
from reid_attack_bench.report.results import Results, Setting
from reid_attack_bench.suites import parse
from tests.report.test_report import change_cells, make_results


@pytest.fixture(scope="module")
def photographed() -> Results:
    """Models trained and ranked on photographs (`campus`), and evaluated on rendered people (`plaza`) too."""
    both = make_results(models=("osnet",), attacks=("fgsm", "pgd"), epsilons=(8,), missing=0)
    clean = [
        dataclasses.replace(row, synthetic=row.dataset == "plaza", home=row.dataset == "campus") for row in both.clean
    ]
    return dataclasses.replace(change_cells(both, lambda cell: cell.dataset == "campus", synthetic=False), clean=clean)


def shown(results: Results) -> str:
    console = Console(width=120, file=io.StringIO(), color_system=None)
    console.print(terminal.leaderboard_table(results, conclude(results).board))
    return console.file.getvalue()


def test_a_table_of_photographs_has_no_banner_of_synthetic_data(photographed) -> None:
    assert "SYNTHETIC" not in shown(photographed)
    assert "SYNTHETIC" not in labels.run_line(photographed, dataset="campus")


def test_a_banner_names_the_synthetic_data_sets_if_there_are_others(photographed) -> None:
    assert labels.run_line(photographed).endswith("· SYNTHETIC DATA: plaza")
    assert labels.run_line(photographed, dataset="plaza").endswith("· SYNTHETIC DATA")
    assert "> **Synthetic data: plaza.**" in report_text(photographed, {}, conclude(photographed))


@pytest.fixture(scope="module")
def withdrawn(photographed) -> Results:
    """The same, where the authors of `campus` have withdrawn it."""
    clean = [dataclasses.replace(row, withdrawn=row.dataset == "campus") for row in photographed.clean]
    cells = change_cells(photographed, lambda cell: cell.dataset == "campus", withdrawn=True)
    return dataclasses.replace(cells, clean=clean)


def test_a_withdrawn_data_set_is_marked_wherever_a_synthetic_one_is(withdrawn) -> None:
    concluded = conclude(withdrawn)
    assert "WITHDRAWN DATA" in " ".join(shown(withdrawn).split())
    assert labels.run_line(withdrawn).endswith("· SYNTHETIC DATA: plaza · WITHDRAWN DATA: campus")
    assert labels.describe(withdrawn, "campus") == "campus, 60 queries, withdrawn data"
    text = report_text(withdrawn, {}, concluded)
    assert "> **Withdrawn data: campus.** Its authors have withdrawn the images" in text
    assert "| campus (withdrawn) |" in text
    html = page(withdrawn, concluded, [])
    assert "<strong>Withdrawn data: campus.</strong>" in html
    assert '"shown":"campus (withdrawn)"' in html
    assert "campus, 60 queries, withdrawn data" in paper.leaderboard(withdrawn, concluded.board).caption
    assert "> **Withdrawn data: campus.**" in compare.to_markdown(
        withdrawn, withdrawn, compare.compare(withdrawn, withdrawn)
    )


def test_tables_have_a_column_for_withdrawn_data(withdrawn) -> None:
    for table in (leaderboard.matrix(withdrawn), leaderboard.clean(withdrawn), leaderboard.leaderboard(withdrawn)):
        assert set(zip(table["dataset"], table["synthetic"], table["withdrawn"], strict=True)) <= {
            ("plaza", True, False),
            ("campus", False, True),
        }


def test_the_terminal_names_attacks_at_another_epsilon(photographed) -> None:
    moved = change_cells(photographed, lambda cell: cell.attack == "fgsm", epsilon=16)
    text = " ".join(shown(moved).split())
    assert "only at another ε: fgsm (16)" in text


def test_an_attack_fitted_on_another_data_set_says_so(tiny, photographed) -> None:
    tiny["attacks"] = {"gap": {}, "noise": {}}
    plan = make_plan(parse.parse(tiny))
    cells = {(cell.attack, cell.source.partition("@")[2], cell.dataset): cell.fitted_on for cell in plan.cells}
    assert {fitted for (attack, *_), fitted in cells.items() if attack == "noise"} == {""}
    homes = {fitted == home for (attack, home, _), fitted in cells.items() if attack == "gap" and home}
    assert homes == {True}
    count = sum(cell.fitted_on not in ("", cell.dataset) for cell in plan.cells)
    assert count > 0
    told = [line for line in manifest.notes(plan, Outcome()) if "gap was fitted on" in line]
    assert sum(int(line.split("; ")[1].split()[0]) for line in told) == count
    moved = change_cells(photographed, lambda cell: cell.attack == "fgsm", fitted_on="plaza", relation="white-box")
    text = report_text(moved, {}, conclude(moved))
    assert "fgsm (fitted on plaza)" in text


def test_panels_show_the_best_control_between_clean_and_the_sources() -> None:
    run = make_results(
        models=("osnet", "mudeep"), places=("plaza",), attacks=("noise", "fgsm"), epsilons=(8,), missing=0
    )
    run = change_cells(run, lambda cell: cell.attack == "noise", family="noise", needs=())
    fgsm, noise = (panels_of(run, [Setting(name, 8)], "mAP")[0][0] for name in ("fgsm", "noise"))
    assert fgsm.row_names[:2] == ["clean (no attack)", "best control"]
    assert "best control" not in noise.row_names
    lowest = [min(c.value("mAP") for c in run.cells if (c.attack, c.target) == ("noise", t)) for t in fgsm.column_names]
    assert fgsm.values[1].tolist() == lowest
    assert not fgsm.own[:2].any()
    assert fgsm.own[2:].sum() == 2
    assert [panel.title for panel in panels_of(run, [Setting("fgsm", 16)], "mAP")[0]] == ["fgsm"]
    titles = {axes.get_title(loc="left") for axes in overview_figure(run).axes}
    assert "fgsm" in titles
    assert "noise" not in titles
    text = shown(run)
    assert "control" in text
    assert "noise" not in text


def test_a_legend_has_one_line_for_all_controls() -> None:
    run = make_results(
        models=("osnet",), places=("plaza",), attacks=("noise", "odfa", "fgsm"), epsilons=(8,), missing=0
    )
    run = change_cells(run, lambda cell: cell.attack in ("noise", "odfa"), family="noise", needs=())
    (legend,) = visibility_figure(run).legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["fgsm", "random controls", "white-box (source = target)", "transfer"]
