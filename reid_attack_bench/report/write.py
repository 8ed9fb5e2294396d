"""The report folder: tables, pictures and report.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from reid_attack_bench.errors import BenchError
from reid_attack_bench.report import plots, sheets, tables
from reid_attack_bench.report.results import Results
from reid_attack_bench.report.tables import Row

Progress = Callable[[int, int, str], None]
"""Called as progress(done, total, note) after each part."""

DEFINITIONS = (
    "**Rank-1, mAP**: in percent over the valid queries of a data set; the distance of each model is in clean.csv.",
    "**White-box**: the attack was crafted on the model it is evaluated on. **Transfer**: crafted on another model; "
    "tables of victims show the source that leaves the lowest mAP.",
    "**Worst case at ε**: for each query the lowest Rank-1 hit and, separately, the lowest AP over every attack and "
    "source at that ε (attacks on queries, any pixel budget), then the mean over valid queries. Intervals are 95 % "
    "bootstrap intervals over queries.",
    "**≤**: some cells of that worst case are missing, so the true worst case can only be lower.",
    "**ε**: L∞ budget per colour value, in steps of 1/255 of the colour range.",
    "**Drop**: clean minus attacked, in percentage points.",
    "**Seeds**: an attack that was fitted and crafted with several seeds shows its mean over them, with their mean "
    "interval over queries; the worst case takes every seed as an attack of its own. matrix.csv holds each.",
)


def write_report(results: Results, out_dir: Path, progress: Progress = lambda done, total, note: None) -> list[Path]:
    """Write every table and picture of a run into `out_dir`; returns the paths, report.md last.

    leaderboard.csv, matrix.csv, clean.csv; plots/ with overview, heat maps, curves and visibility; sheets/ with
    example images; report.md. A file appears whole or not at all; the same results give the same bytes.

    Raises:
        BenchError: the results hold no cell, or contradict themselves.
    """
    total = 7
    if results.cells.empty:
        raise BenchError("the results hold no cell: run at least one attack, then write the report")
    out_dir = Path(out_dir)
    written = [
        tables.write_csv(tables.leaderboard(results), out_dir / "leaderboard.csv"),
        tables.write_csv(tables.matrix(results), out_dir / "matrix.csv"),
        tables.write_csv(tables.clean(results), out_dir / "clean.csv"),
    ]
    progress(1, total, "tables")
    folder = out_dir / "plots"
    pictures: dict[str, list[Path]] = {}
    pictures["Overview"] = [plots.overview(results, folder)]
    progress(2, total, "overview")
    heat_maps = plots.heat_maps(results, folder)
    progress(3, total, "heat maps")
    pictures["Robustness curves"] = plots.curves(results, folder)
    progress(4, total, "curves")
    pictures["Strength against visibility"] = [plots.visibility(results, folder)]
    pictures["Matrices"] = heat_maps
    progress(5, total, "visibility")
    pictures["Example images"] = sheets.write_sheets(results, out_dir / "sheets")
    progress(6, total, "sheets")
    for paths in pictures.values():
        written += paths
    report = report_text(results, {title: [p.relative_to(out_dir) for p in ps] for title, ps in pictures.items()})
    written.append(tables.replace_file(out_dir / "report.md", report.encode()))
    progress(7, total, "report.md")
    return written


def report_text(results: Results, pictures: dict[str, list[Path]]) -> str:
    """report.md: notes, leaderboard, pictures (title → paths relative to the report), definitions, how to reproduce."""
    synthetic = plots.is_synthetic(results)
    lines = [f"# {_plain(results.suite)}: robustness of re-identification models", ""]
    if synthetic:
        lines += ["> **Synthetic data.** The figures say nothing about how a model does on photographs of people.", ""]
    lines += [f"- {_plain(note)}" for note in results.notes] + [""] * bool(results.notes)
    lines += ["## Leaderboard", "", f"Ordered by worst-case mAP at ε = {results.headline_epsilon}/255. In percent.", ""]
    lines += _leaderboard_lines(results)
    lines += ["", "All columns: [leaderboard.csv](leaderboard.csv). Every cell: [matrix.csv](matrix.csv). "]
    lines[-1] += "Without attack: [clean.csv](clean.csv)."
    lines += _missing_lines(results)
    for title, paths in pictures.items():
        if paths:
            lines += ["", f"## {title}", ""]
            lines += [f"![{path.stem}]({quote(path.as_posix(), safe='/@+=')})\n" for path in paths]
            lines[-1] = lines[-1].rstrip()
    lines += ["", "## Definitions", "", *(f"- {definition}" for definition in DEFINITIONS)]
    lines += ["", "## How to reproduce", ""]
    command = results.manifest.get("command")
    if command:
        command = command if isinstance(command, str) else " ".join(map(str, command))
        lines += ["```sh", command, "```", ""]
    lines += [f"Seed {results.seed}. Versions, machine and times of each step are in the manifest of the run."]
    return "\n".join(lines) + "\n"


def _leaderboard_lines(results: Results) -> list[str]:
    board = tables.rows(tables.leaderboard(results))
    epsilons = sorted({each.epsilon for each in tables.settings(results) if each.perturbs == "query"})
    header = ["#", "victim", "defence", "data set", "queries", "clean Rank-1", "clean mAP"]
    for epsilon in epsilons:
        header += [f"worst Rank-1, ε = {epsilon}", f"worst mAP, ε = {epsilon}"]
    lines = [_table_line(header), _table_line(["--:", "---", "---", "---", *["--:"] * (len(header) - 4)])]
    for row in board:
        texts = ["" if tables.is_missing(row["rank"]) else str(row["rank"]), row["victim"], row["defence"]]
        texts += [row["dataset"] + (" (synthetic)" if row["synthetic"] else "")]
        texts += [tables.format_value("queries", row["queries"])]
        texts += [_with_interval(row, "clean_rank1"), _with_interval(row, "clean_mAP")]
        for epsilon in epsilons:
            bound = "≤ " if int(row[f"worst_e{epsilon}_missing"]) else ""
            for metric in plots.METRICS:
                shown = _with_interval(row, f"worst_e{epsilon}_{metric}")
                texts.append(bound + shown if shown else "")
        lines.append(_table_line([_plain(value) for value in texts]))
    return lines


def _with_interval(row: Row, name: str) -> str:
    value, low, high = (tables.number(row.get(f"{name}{end}")) for end in ("", "_low", "_high"))
    if value != value:
        return ""
    return f"{value:.1f}" + (f" [{low:.1f}, {high:.1f}]" if low == low and high == high else "")


def _missing_lines(results: Results) -> list[str]:
    reasons = Counter(str(status) for status in results.cells["status"] if status != "ok")
    if not reasons:
        return []
    counted = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    lines = ["", f"{sum(reasons.values())} of {len(results.cells)} cells have no figures (empty, never zero):", ""]
    return lines + [f"- {count} × {_plain(reason)}" for reason, count in counted]


def _table_line(texts: list[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _plain(value: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    line = "" if tables.is_missing(value) else " ".join(str(value).split())
    for special in "\\|*_`<[":
        line = line.replace(special, f"\\{special}" if special != "<" else "&lt;")
    return line
