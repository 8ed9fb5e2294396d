"""Commands report and compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from reid_attack_bench.cli.options import AS_JSON, MOVED_STORE, bar
from reid_attack_bench.errors import BenchError
from reid_attack_bench.text import PlainConsole, say, visible

if TYPE_CHECKING:
    from reid_attack_bench.jobs.result import Result


@click.command("report")
@click.argument("run_dir", type=click.Path(path_type=Path))
@MOVED_STORE
@click.option("--every-plot", is_flag=True, help="Draw heat maps and curves also of a run with thousands of cells.")
@AS_JSON
def report_command(run_dir: Path, store: Path | None, every_plot: bool, as_json: bool) -> None:
    """Write the report of a run again, from the store.

    No model is run. For an interrupted or running run, the finished steps are reported.
    """
    from reid_attack_bench.jobs.result import Result

    write_and_show(Result.load(run_dir, store), as_json, every_plot=every_plot)


@click.command("compare")
@click.argument("run_a", type=click.Path(path_type=Path))
@click.argument("run_b", type=click.Path(path_type=Path))
@MOVED_STORE
@click.option(
    "--out",
    "outs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write all values to a .csv or .md file.",
)
@click.option("--rows", default=20, show_default=True, type=click.IntRange(min=1), help="Rows to print.")
def compare_command(run_a: Path, run_b: Path, store: Path | None, outs: tuple[Path, ...], rows: int) -> None:
    """Compare two runs on the same cells and queries.

    Changes have paired bootstrap intervals.
    """
    from reid_attack_bench.files import replace_file
    from reid_attack_bench.jobs.result import Result
    from reid_attack_bench.report import rows as tables
    from reid_attack_bench.report.analysis import compare

    for out in outs:
        if out.suffix not in (".csv", ".md"):
            raise BenchError(f"--out {out}: the file must end in .csv or .md")
    a, b = (Result.load(run, store).results for run in (run_a, run_b))
    changes = compare.compare(a, b)
    names = (str(run_a), str(run_b))
    for out in outs:
        if out.suffix == ".csv":
            tables.write_csv(changes, out)
        else:
            replace_file(out, compare.to_markdown(a, b, changes, names).encode())
    shown = Table("value", "Rank-1", "mAP", "change of mAP [95 %]", box=None, header_style="bold", expand=False)
    largest = changes.sort_values("mAP_change", key=abs, ascending=False, kind="stable")
    for row in tables.rows(largest.head(rows)):
        shown.add_row(
            compare.name_of(row),
            f"{row['rank1_a']:.1f} → {row['rank1_b']:.1f}",
            f"{row['mAP_a']:.1f} → {row['mAP_b']:.1f}",
            compare.change_of(row, "mAP"),
        )
    console = PlainConsole()
    console.print(shown)
    if len(changes) > rows:
        say(f"… and {len(changes) - rows} more: --rows, or --out FILE.csv")
    for line in compare.summary(a, b, changes, names):
        say(line)


def write_and_show(result: Result, as_json: bool, *, every_plot: bool = False) -> None:
    """Write the report of a run and print its leaderboard."""
    from reid_attack_bench.report.terminal import leaderboard_table

    with bar("report", quiet=as_json) as progress:
        written = result.write_report(progress, every_plot=every_plot)
    if as_json:
        print(json.dumps({"event": "report", "out": str(result.out), "files": [str(path) for path in written]}))
        return
    console = PlainConsole()
    console.print(leaderboard_table(result.results, result.conclusions.board, console.width))
    for note in result.results.notes:
        console.print(Text.assemble(("note", "yellow"), f" {visible(note)}"), soft_wrap=True)
    console.print(
        f"{len(written)} files in {result.out}: report.html, report.md, leaderboard.csv, matrix.csv, tables, plots, "
        "sheets",
        soft_wrap=True,
    )
