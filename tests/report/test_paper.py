"""Tables for papers: values against the cells that they come from, and LaTeX that compiles."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from reid_attack_bench.report.analysis import conclude
from reid_attack_bench.report.analysis import leaderboard as tables
from reid_attack_bench.report.paper import write as paper
from reid_attack_bench.report.paper.latex import latex_text, to_latex
from reid_attack_bench.report.paper.markdown import to_markdown
from reid_attack_bench.report.paper.table import PaperTable, Value, leaderboard, matrix
from reid_attack_bench.report.results import Results, Setting
from tests.report.test_report import change_cells, make_results, with_seeds, without

PGD = Setting("pgd", 8)


@pytest.fixture(scope="module")
def small() -> Results:
    return make_results(
        models=("osnet", "mudeep"), places=("plaza",), attacks=("fgsm", "pgd"), epsilons=(8,), missing=0
    )


def cell_of(table: PaperTable, source: str, target: str) -> Value:
    line = next(line for line in table.lines if line.stub[-1] == source)
    return line.values[table.heads.index(target)]


def test_matrix_shows_mean_spread_and_interval_of_the_seeds(small: Results) -> None:
    run = with_seeds(small, "pgd", {0: 0.0, 1: -2.0, 2: 5.0})
    for metric in ("rank1", "mAP"):
        table = matrix(run, "plaza", PGD, metric)
        assert table.heads == ("mudeep@plaza", "osnet@plaza")
        for source in table.heads:
            for target in table.heads:
                mine = [c for c in run.cells if (c.attack, c.source, c.target) == ("pgd", source, target)]
                values, low, high = (
                    np.array([cell.value(f"{metric}{end}") for cell in mine]) for end in ("", "_low", "_high")
                )
                value = cell_of(table, source, target)
                assert (value.text, value.spread) == (f"{values.mean():.1f}", f"{values.std(ddof=1):.1f}")
                assert value.interval == f"[{low.mean():.1f}, {high.mean():.1f}]"
                assert value.own == (source == target)
                assert value.notes == ()
        clean = {row.victim: row.value(metric) for row in run.clean}
        assert [f.text for f in table.lines[0].values] == [f"{clean[name]:.1f}" for name in table.heads]
        for words in ("60 queries", "synthetic data", "ε = 8/255", "3 seeds", "suite demo, seed 7"):
            assert words in table.caption
    # one seed alone has no spread, and the caption speaks of none
    once = matrix(small, "plaza", PGD, "mAP")
    assert not any(value.spread for line in once.lines for value in line.values)
    assert "±" not in once.caption


def test_bold_is_the_strongest_transfer_to_each_target() -> None:
    run = make_results(places=("plaza",), attacks=("pgd",), epsilons=(8,), missing=0)
    table = matrix(run, "plaza", PGD, "mAP")
    for i, target in enumerate(table.heads):
        others = {line.stub[-1]: line.values[i] for line in table.lines[1:] if line.stub[-1] != target}
        lowest = min(float(value.text) for value in others.values())
        assert {name for name, f in others.items() if f.best} == {
            n for n, f in others.items() if float(f.text) == lowest
        }
        assert not cell_of(table, target, target).best


def test_a_missing_cell_is_a_dash_with_its_reason_never_zero(small: Results) -> None:
    run = with_seeds(small, "pgd", {0: 0.0, 1: -2.0})
    reached = [cell.attack == "pgd" and cell.target == "mudeep@plaza" for cell in run.cells]
    pair = [here and cell.source == "osnet@plaza" for here, cell in zip(reached, run.cells, strict=True)]
    partly = [here and cell.seed == 1 for here, cell in zip(pair, run.cells, strict=True)]
    own = [here and cell.own for here, cell in zip(reached, run.cells, strict=True)]
    failed = [one or other for one, other in zip(partly, own, strict=True)]
    broken = change_cells(without(run, failed), partly, status="diverged at 50 % | late_")
    table = matrix(broken, "plaza", PGD, "mAP")
    gone, part = cell_of(table, "mudeep@plaza", "mudeep@plaza"), cell_of(table, "osnet@plaza", "mudeep@plaza")
    assert (gone.text, gone.interval, gone.notes) == ("", "", ("failed",))
    assert (part.spread, part.notes) == ("", ("1 of 2 seeds; diverged at 50 % | late_",))
    latex, markdown = to_latex(table), to_markdown(table)
    assert r"--$^{\ast}$$^{\mathrm{a}}$" in latex
    assert r"$^{\mathrm{a}}$ failed." in latex
    assert r"1 of 2 seeds; diverged at 50~\% \textbar{} late\_" in latex
    assert "| –<sup>a</sup> |" in markdown
    assert r"<sup>b</sup> 1 of 2 seeds; diverged at 50 % \| late\_" in markdown
    assert not re.search(r"\b0\.0\b", markdown)
    never = dataclasses.replace(run, cells=[cell for here, cell in zip(pair, run.cells, strict=True) if not here])
    assert cell_of(matrix(never, "plaza", PGD, "mAP"), "osnet@plaza", "mudeep@plaza").notes == ("not run",)
    everything = without(run, np.ones(len(run.cells), bool))
    assert all(not f.text for line in matrix(everything, "plaza", PGD, "mAP").lines[1:] for f in line.values)


def test_leaderboard_has_room_on_a_page_and_says_what_is_bounded() -> None:
    run = make_results(attacks=("fgsm", "pgd", "noise"), missing=0)
    victims = sorted({row.victim for row in run.clean})
    board = tables.leaderboard(run, {(victims[0], "campus"): ["masked gradients"]})
    table = leaderboard(run, board)
    assert table.stub == ("#", "victim", "defence")
    assert len(table.heads) == 6  # clean, ε = 4 and ε = 8
    last = table.lines[-1]
    assert last.stub[1] == victims[0]
    assert last.rule
    assert last.notes == ("unverified: masked gradients; see the audit in report.md",)
    assert not any(value.best for value in last.values)
    column = [float(line.values[-1].text) for line in table.lines[:-1]]
    assert [line.values[-1].best for line in table.lines[:-1]] == [value == max(column) for value in column]
    row = board.iloc[0]
    assert table.lines[0].values[-1].interval == f"[{row.worst_e8_mAP_low:.1f}, {row.worst_e8_mAP_high:.1f}]"
    # an upper bound beats nobody
    bounded = without(run, (np.arange(len(run.cells)) == len(run.cells) - 1))
    table = leaderboard(bounded, tables.leaderboard(bounded))
    (upper,) = (line for line in table.lines if any(f.text.startswith("≤") for f in line.values))
    assert "can only be lower" in upper.values[-1].notes[0]
    assert not any(line.values[-1].best for line in table.lines)
    assert any(line.values[0].best for line in table.lines)


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("a_b & 50% of $x #1 {y}", r"a\_b \& 50\% of \$x \#1 \{y\}"), (r"\input", r"\textbackslash{}input"),
        ("~^<>|", r"\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}"),
        ("[0]*", r"{[}0]$^{\ast}$"),
        ("ε ≤ 8, L∞", r"$\varepsilon$ $\leq$ 8, L$_\infty$"), ("José", r"Jos\'{e}"), ("行人", "{[}U+884C]{[}U+4EBA]"),
        ("two\nlines", "two lines"), ("50 %", r"50~\%"),
    ],
)  # fmt: skip
def test_special_characters(text: str, latex: str) -> None:
    assert latex_text(text) == latex


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex and booktabs")
@pytest.mark.parametrize("shape", ["few", "seeds", "twenty"])
def test_latex_compiles_with_booktabs_alone_and_fits_the_page(shape: str, tmp_path: Path) -> None:
    if shape == "few":
        odd = ("osnet", r"mü_&%$#{}~^\[x]*_a_name_that_nobody_would_want_to_read_in_a_table_of_a_paper")
        run = make_results(odd, ("plaza",), ("fgsm", "pgd"), (4, 8, 16), missing=0.1)
    elif shape == "seeds":
        run = with_seeds(make_results(attacks=("fgsm", "pgd")), "pgd", {0: 0.0, 1: -2.0, 2: 5.0})
    else:
        run = make_results(tuple(f"mobilenetv2_x{i}_0" for i in range(20)), ("plaza",), ("pgd",), (8,), missing=0.05)
    paths = paper.write_tables(run, conclude.conclude(run).board, tmp_path)
    document = r"\documentclass{article}\usepackage{booktabs}\begin{document}"
    document += "".join(rf"\input{{{path.name}}}\clearpage" for path in paths if path.suffix == ".tex")
    (tmp_path / "all.tex").write_text(document + r"\end{document}")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout, done.stdout
    assert "Float too large" not in done.stdout, done.stdout
    # the same results give the same bytes
    again = paper.write_tables(run, conclude.conclude(run).board, tmp_path / "again")
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    assert not any(re.search(r"\bnan\b", path.read_text()) for path in paths)
