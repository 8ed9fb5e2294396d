"""The report folder: tables, plots, report.md and report.html."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import replace_file
from reid_attack_bench.report import costs, rows
from reid_attack_bench.report.analysis import findings
from reid_attack_bench.report.analysis import leaderboard as tables
from reid_attack_bench.report.analysis.conclude import Conclusions, conclude
from reid_attack_bench.report.html import build as html
from reid_attack_bench.report.markdown import definitions, report_text
from reid_attack_bench.report.paper import write as paper
from reid_attack_bench.report.plots import cost, curves, sheets, visibility
from reid_attack_bench.report.plots import heat_maps as plots
from reid_attack_bench.report.results import Results

MANY_CELLS = 5_000
"""Cells of a run above which heat maps and curves are drawn on request only: they take most of the time of a report."""

ON_REQUEST = (
    f"Heat maps and curves are not drawn for more than {MANY_CELLS:,} cells: report.html shows them, and "
    "`reid-attack-bench report RUN --every-plot` draws them."
)

Progress = Callable[[int, int, str], None]
"""Called as progress(done, total, note) after every part."""


def write_report(
    results: Results,
    out_dir: Path,
    progress: Progress = lambda done, total, note: None,
    concluded: Conclusions | None = None,
    every_plot: bool = False,
) -> list[Path]:
    """Write the report of a run into `out_dir`; returns the paths.

    Files: leaderboard.csv, matrix.csv, clean.csv, costs.csv, mdr.csv, and findings.csv, defences.csv, same_images.csv
    and rank_order.csv if the suite has claims, defences and several data sets; tables/ with leaderboard and matrices in
    LaTeX and Markdown; plots/ with overview, heat maps, curves, visibility and costs as PNG and PDF; sheets/ with
    example images; report.md and report.html. Files are written atomically; equal results give equal bytes.
    `concluded`: conclusions of these results, computed if None. `every_plot`: draw heat maps and curves also of a run
    with more than `MANY_CELLS` cells.

    Raises:
        BenchError: the results have no cell, or are inconsistent.
    """
    total = 8
    if not results.cells:
        raise BenchError("the results have no cell; run at least one attack, then write the report")
    out_dir = Path(out_dir)
    concluded = concluded or conclude(results)
    written = _write_csv(results, concluded, out_dir)
    written += paper.write_tables(results, concluded.board, out_dir / "tables", concluded.controls)
    progress(1, total, "tables")
    folder = out_dir / "plots"
    figures: dict[str, list[Path]] = {}
    figures["Overview"] = plots.overview(results, folder)
    progress(2, total, "overview")
    drawn = every_plot or len(results.cells) <= MANY_CELLS
    heat_maps = plots.heat_maps(results, folder) if drawn else []
    progress(3, total, "heat maps")
    figures["Robustness curves"] = curves.curves(results, folder) if drawn else []
    progress(4, total, "curves")
    figures["Strength against visibility"] = visibility.visibility(results, folder)
    figures["Strength against cost"] = cost.costs(results, folder)
    figures["Matrices"] = heat_maps
    progress(5, total, "visibility")
    figures["Example images"] = sheets.write_sheets(results, out_dir / "sheets")
    progress(6, total, "sheets")
    for paths in figures.values():
        written += paths
    report = report_text(
        results,
        {title: [p.relative_to(out_dir) for p in ps if p.suffix == ".png"] for title, ps in figures.items()},
        concluded,
        "" if drawn else ON_REQUEST,
    )
    written.append(replace_file(out_dir / "report.md", report.encode()))
    progress(7, total, "report.md")
    written.append(replace_file(out_dir / "report.html", html.page(results, concluded, definitions(results)).encode()))
    progress(8, total, "report.html")
    return written


def _write_csv(results: Results, concluded: Conclusions, out_dir: Path) -> list[Path]:
    of_every_run = {
        "leaderboard": concluded.board,
        "matrix": tables.matrix(results, concluded.controls),
        "clean": tables.clean(results),
        "costs": costs.table(results.costs),
    }
    of_some = {
        "findings": findings.table(concluded.claims) if concluded.claims else pd.DataFrame(),
        "defences": concluded.gains,
        "same_images": concluded.same_images,
        "rank_order": concluded.orders,
        "mdr": concluded.mean_drops,
    }
    found = {**of_every_run, **{name: table for name, table in of_some.items() if not table.empty}}
    return [rows.write_csv(table, out_dir / f"{name}.csv") for name, table in found.items()]
