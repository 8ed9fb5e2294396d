r"""Tables for papers: the leaderboard and all matrices, in LaTeX and Markdown.

The LaTeX requires only `\usepackage{booktabs}` and fits the text width of `article`.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from reid_attack_bench.files import replace_file
from reid_attack_bench.report import labels
from reid_attack_bench.report.analysis.controls import Controls, find, without_controls
from reid_attack_bench.report.paper.latex import to_latex
from reid_attack_bench.report.paper.markdown import to_markdown
from reid_attack_bench.report.paper.table import leaderboard, matrix
from reid_attack_bench.report.results import Results, Setting
from reid_attack_bench.text import file_name


def write_tables(results: Results, board: pd.DataFrame, folder: Path, compared: Controls | None = None) -> list[Path]:
    """Write leaderboard and matrices as .tex and .md; returns the paths.

    Args:
        board: see analysis.leaderboard.
        compared: the controls of the run, found if None; they have no matrices of their own but a row in the others.
    """
    compared = compared or find(results)
    first = leaderboard(results, board)
    written = [
        replace_file(folder / "leaderboard.tex", to_latex(first).encode()),
        replace_file(folder / "leaderboard.md", to_markdown(first).encode()),
    ]
    for dataset, setting in _matrices(results):
        both = [matrix(results, dataset, setting, metric, compared) for metric in labels.METRICS]
        stem = _stem(dataset, setting)
        written.append(replace_file(folder / f"{stem}.tex", "\n".join(map(to_latex, both)).encode()))
        written.append(replace_file(folder / f"{stem}.md", "\n".join(map(to_markdown, both)).encode()))
    return written


def index_lines(results: Results, folder: str = "tables") -> list[str]:
    """The section of report.md that links the tables."""
    lines = [
        "",
        "## Tables for a paper",
        "",
        "In LaTeX (requires booktabs; include with `\\input`) and in Markdown.",
        "",
    ]
    lines.append(f"- leaderboard: {_links(folder, 'leaderboard')}")
    for dataset, places in groupby(_matrices(results), key=lambda place: place[0]):
        for _, setting in places:
            words = f"{setting.variant}, ε = {setting.epsilon}/255, on {dataset}"
            lines.append(f"- {labels.markdown_text(words)}: {_links(folder, _stem(dataset, setting))}")
    return lines


def _links(folder: str, stem: str) -> str:
    path = quote(f"{folder}/{stem}", safe="/@+=")
    return f"[LaTeX]({path}.tex), [Markdown]({path}.md)"


def _matrices(results: Results) -> list[tuple[str, Setting]]:
    """(data set, setting) of every matrix, sorted."""
    shown = set(without_controls(results))
    return sorted({(cell.dataset, cell.setting) for cell in results.cells if cell.setting in shown})


def _stem(dataset: str, setting: Setting) -> str:
    return file_name("matrix", dataset, setting.attack, setting.budget)
