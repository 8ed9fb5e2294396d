"""Heat maps, robustness curves and a summary picture, drawn without pyplot and the same bytes on every run.

Every `*_figure` function returns a Figure for inspection; `heat_maps`, `curves`, `overview` and `visibility` save each
as a PNG and, with the same name, as a PDF.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from reid_attack_bench.report import rows
from reid_attack_bench.report.labels import (
    CLEAN_ROW,
    METRICS,
    SOURCE_AXIS,
    TARGET_AXIS,
    datasets,
    describe,
    file_name,
    run_line,
)
from reid_attack_bench.report.plots.style import (
    BOLD,
    COLOUR_MAP,
    heading_width,
    new_figure,
    save_plot,
    styled,
    text_width,
)
from reid_attack_bench.report.results import Results
from reid_attack_bench.report.rows import Row, Setting

# Heat maps


@dataclass(frozen=True)
class _Grid:
    """One panel: figures in % with NaN where there is none, and why ("missing" or "not run"); row 0 is clean."""

    title: str
    row_names: list[str]
    column_names: list[str]
    values: np.ndarray
    gaps: list[list[str]]
    own: np.ndarray


@dataclass(frozen=True)
class _Look:
    """Sizes of a panel: cell width and height in inches, font sizes in points, digits after the point."""

    width: float
    height: float
    label: float
    figure: float
    digits: int

    def shows_numbers(self) -> bool:
        widest = text_width(f"{88.8:.{self.digits}f}", self.figure)
        return widest <= 0.92 * self.width and self.figure / 72 <= 0.8 * self.height


def _grids(results: Results, plan: list[Setting], metric: str) -> list[list[_Grid]]:
    """A line of panels per data set, one panel per setting."""
    cells, unharmed = rows.over_seeds(rows.rows(results.cells)), rows.rows(results.clean)
    lines = []
    for dataset in datasets(results):
        here = [cell for cell in cells if cell["dataset"] == dataset]
        clean = {row["victim"]: row for row in unharmed if row["dataset"] == dataset}
        lines.append([_grid(here, clean, setting, metric) for setting in plan])
    return lines


def _grid(here: list[Row], unharmed: dict[str, Row], setting: Setting, metric: str) -> _Grid:
    # the same axes for every attack, so that pictures can be compared
    sources = sorted({cell["source"] for cell in here})
    targets = sorted({cell["target"] for cell in here} | set(unharmed))
    found = {(cell["source"], cell["target"]): cell for cell in here if rows.setting_of(cell) == setting}
    lines: list[list[Row | None]] = [[unharmed.get(target) for target in targets]]
    lines += [[found.get((source, target)) for target in targets] for source in sources]
    ok = [[row is not None and row["status"] == "ok" for row in line] for line in lines]
    values = np.array([
        [rows.number(row[metric]) if row is not None and good else math.nan for row, good in zip(*pair, strict=True)]
        for pair in zip(lines, ok, strict=True)
    ]).reshape(len(lines), len(targets))  # fmt: skip
    gaps = [["not run" if row is None else "missing" for row in line] for line in lines]
    own = np.array([[name == target for target in targets] for name in [None, *sources]]).reshape(values.shape)
    return _Grid(setting.variant, [CLEAN_ROW, *sources], targets, values, gaps, own)


def _draw_grid(axes: Axes, grid: _Grid, look: _Look, row_labels: bool, column_labels: bool) -> Any:
    count_rows, count_columns = grid.values.shape
    image = axes.imshow(
        np.ma.masked_invalid(grid.values), cmap=COLOUR_MAP, norm=Normalize(0, 100), aspect="auto", interpolation="none"
    )
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xticks(range(count_columns), grid.column_names if column_labels else [], fontsize=look.label)
    axes.set_yticks(range(count_rows), grid.row_names if row_labels else [], fontsize=look.label)
    axes.tick_params(length=0, pad=3)
    if column_labels and _turned(grid.column_names, look):
        for label in axes.get_xticklabels():
            label.set_rotation(90)
    axes.axhline(0.5, color="white", linewidth=4)  # clean is no source
    widest_word = max(text_width(word, look.figure) for word in ("missing", "not run"))
    gap_size = look.figure * min(1.0, 0.8 * look.width / widest_word)
    for y in range(count_rows):
        for x in range(count_columns):
            value = grid.values[y, x]
            if math.isnan(value):
                axes.add_patch(
                    Rectangle(
                        (x - 0.5, y - 0.5), 1, 1, facecolor="white", edgecolor="#999999", hatch="////", linewidth=0.4
                    )
                )
                if gap_size >= 5:
                    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
                    axes.text(x, y, grid.gaps[y][x], ha="center", va="center", fontsize=gap_size, bbox=box)
            elif look.shows_numbers():
                shade = "black" if value > 48 else "white"
                text = f"{value:.{look.digits}f}"
                axes.text(x, y, text, ha="center", va="center", fontsize=look.figure, color=shade)
    inset_x, inset_y = 0.02 / look.width, 0.02 / look.height
    thick = 1.0 if min(look.width, look.height) > 0.3 else 0.7
    for y, x in np.argwhere(grid.own):
        for colour, line in (("white", 2.6 * thick), ("black", 1.2 * thick)):
            corner = (x - 0.5 + inset_x, y - 0.5 + inset_y)
            size = (1 - 2 * inset_x, 1 - 2 * inset_y)
            axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=line, zorder=3))
    axes.set_xlim(-0.5, count_columns - 0.5)
    axes.set_ylim(count_rows - 0.5, -0.5)
    return image


def _turned(names: list[str], look: _Look) -> bool:
    return any(text_width(name, look.label) > 0.95 * look.width for name in names)


@dataclass(frozen=True)
class _Block:
    """Panels side by side under one title."""

    title: str
    grids: list[_Grid]


def _lay_out(lines: list[_Block], look: _Look, heading: str, subheading: str, scale: str) -> Figure:
    """Blocks of panels below each other, laid out to the inch: no labels overlap however long the names are.

    Row labels stand at a panel where its left neighbour has others, column labels where the panel below has.
    """
    blocks = [block.grids for block in lines]
    line = look.label / 72
    label_width = max(text_width(n, look.label) for block in blocks for g in block for n in g.row_names) + 0.12
    turned = any(_turned(g.column_names, look) for block in blocks for g in block)
    names = [n for block in blocks for g in block for n in g.column_names]
    label_height = (max((text_width(n, look.label) for n in names), default=0) if turned else line) + 0.12
    title_size = min(10.0, look.label + 1.5)

    def row_labels(block: list[_Grid], i: int) -> bool:
        return i == 0 or block[i].row_names != block[i - 1].row_names

    def below(b: int, i: int) -> int | None:
        """The next block with a panel in column `i`."""
        return next((later for later in range(b + 1, len(blocks)) if len(blocks[later]) > i), None)

    def column_labels(b: int, i: int) -> bool:
        later = below(b, i)
        return later is None or blocks[b][i].column_names != blocks[later][i].column_names

    def size_of(grid: _Grid) -> tuple[float, float]:
        height, width = (size * cell for size, cell in zip(grid.values.shape, (look.height, look.width), strict=True))
        return height, max(width, 0.3)

    # columns are as wide in every block, so that what hangs below a panel meets no title further down
    columns = range(max((len(block) for block in blocks), default=0))
    lead = [label_width * any(row_labels(block, i) for block in blocks if len(block) > i) for i in columns]
    room = [
        max(max(size_of(block[i])[1], text_width(block[i].title, title_size)) for block in blocks if len(block) > i)
        for i in columns
    ]
    short = any(block[0].values.shape[0] * look.height <= 1.9 for block in blocks if block)
    gap, title_height = 0.22, title_size / 72 + 0.16
    axis_words, top, bottom, bar = (0.5 if short else 0.32), 0.62, 0.8 if short else 0.68, 0.85
    positions: list[list[tuple[float, float, float, float]]] = []
    y, right, end = top, 0.0, 0.0
    for b, block in enumerate(blocks):
        x, deepest, place = axis_words, 0.0, []
        y += (title_height if any(grid.title for grid in block) else 0.0) + (0.3 if lines[b].title else 0.0)
        for i, grid in enumerate(block):
            height, width = size_of(grid)
            x += lead[i]
            place.append((x, y, width, height))
            x += room[i] + gap
            under = height + (label_height if column_labels(b, i) else 0.0)
            # labels under the last panel of a column hang free beside the blocks below
            deepest = max(deepest, height if below(b, i) is None else under)
            end = max(end, y + under)
        positions.append(place)
        right = max(right, x)
        y += deepest + gap * 0.4
    titles = [place[0][0] + BOLD * text_width(b.title, 10) for b, place in zip(lines, positions, strict=True)]
    right = max(right, *(title + gap for title in titles))  # the bar stands clear of long titles too
    wide = max(right + bar, heading_width(heading, subheading), 6.0, *titles)
    high = end + bottom
    figure = new_figure(wide, high, heading, subheading)
    image = None
    for b, block in enumerate(blocks):
        if lines[b].title:
            height = 0.08 + (title_height if any(grid.title for grid in block) else 0.0)
            place_y = 1 - (positions[b][0][1] - height) / high
            figure.text(positions[b][0][0] / wide, place_y, lines[b].title, fontsize=10, fontweight="bold")
        for i, grid in enumerate(block):
            left, from_top, width, height = positions[b][i]
            axes = figure.add_axes((left / wide, 1 - (from_top + height) / high, width / wide, height / high))
            image = _draw_grid(axes, grid, look, row_labels(block, i), column_labels(b, i))
            axes.set_title(grid.title, fontsize=title_size, loc="left", pad=5)
            # in words once per side, on the panels at the edge
            if i == 0:
                axes.set_ylabel(SOURCE_AXIS if height > 1.9 else SOURCE_AXIS.replace(" (", "\n("), fontsize=9)
                axes.yaxis.set_label_coords(-(left - (0.4 if short else 0.24)) / width, 0.5)
            if below(b, i) is None:
                axes.set_xlabel(TARGET_AXIS if width > 1.6 else TARGET_AXIS.replace(" (", "\n("), fontsize=9)
    first = positions[0][0]
    last = positions[-1][0]
    bar_height = min(last[1] + last[3] - first[1], 4.5)
    bar_axes = figure.add_axes(
        ((right + 0.02) / wide, 1 - (first[1] + bar_height) / high, 0.14 / wide, bar_height / high)
    )
    if image is not None:
        figure.colorbar(image, cax=bar_axes, label=scale, ticks=range(0, 101, 20))
    key = [
        Patch(facecolor="white", edgecolor="black", linewidth=1.2, label="white-box (source = target)"),
        Patch(facecolor="white", edgecolor="#999999", hatch="////", label="no figure (missing or not run)"),
    ]
    figure.legend(handles=key, loc="lower left", bbox_to_anchor=(0.1 / wide, 0.06 / high), ncols=2, fontsize=8)
    return figure


def heat_map_figure(results: Results, setting: Setting, metric: str) -> Figure:
    """One attack setting as a source × target matrix per data set; metric is "rank1" or "mAP", in %."""
    with styled():
        names = datasets(results)
        grids = [
            replace(line[0], title=describe(results, name))
            for name, line in zip(names, _grids(results, [setting], metric), strict=True)
        ]
        size = max(max(grid.values.shape) for grid in grids)
        width = min(max(8.0 / size, 0.3), 0.85)
        look = _Look(width, min(width, 0.42), 9 if width > 0.5 else 7.5, 9 if width > 0.5 else 6.5, 1)
        across = max(1, int(15 / (max(grid.values.shape[1] for grid in grids) * width + 1.5)))
        blocks = [_Block("", grids[i : i + across]) for i in range(0, len(grids), across)]
        heading = f"{METRICS[metric]} under {setting.variant}, ε = {setting.epsilon}/255"
        return _lay_out(blocks, look, heading, run_line(results, setting), f"{METRICS[metric]} (%)")


def heat_maps(results: Results, folder: Path) -> list[Path]:
    """Write one heat map per attack setting and metric; returns the paths."""
    return [
        path
        for setting in rows.settings(results)
        for metric in METRICS
        for path in save_plot(heat_map_figure(results, setting, metric), folder / _heat_map_name(setting, metric))
    ]


def _heat_map_name(setting: Setting, metric: str) -> str:
    return file_name("matrix", setting.attack, setting.budget, metric) + ".png"


def overview_figure(results: Results) -> Figure:
    """The mAP matrices of every attack at the headline epsilon (else its nearest), a block of panels per data set."""
    with styled():
        epsilon = results.headline_epsilon
        nearest: dict[Setting, Setting] = {}
        for setting in sorted(rows.settings(results), key=lambda s: (abs(s.epsilon - epsilon), s)):
            nearest.setdefault(replace(setting, epsilon=0), setting)
        plan = sorted(nearest.values(), key=lambda s: (s.epsilon != epsilon, s))
        panels = [s.variant if s.epsilon == epsilon else f"{s.variant}, ε = {s.epsilon}/255" for s in plan]
        lines = [
            [replace(grid, title=panel) for grid, panel in zip(line, panels, strict=True)]
            for line in _grids(results, plan, "mAP")
        ]
        size = max((max(grid.values.shape) for line in lines for grid in line), default=1)
        cell = min(max(13.0 / (max(len(plan), 1) * size), 0.24 if size <= 10 else 2.6 / size), 0.5)
        look = _Look(cell, cell, min(8.0, cell * 72 * 0.75), min(8.5, cell * 72 * 0.45), 0)
        widest = max([size * cell, *(text_width(panel, 9) for panel in panels)]) + 0.22
        across = max(1, int(9.6 / widest))
        across = math.ceil(len(plan) / math.ceil(len(plan) / across))  # rows of equal length
        lines = [[_shortened(grid) for grid in line] for line in lines]
        blocks = [
            _Block(describe(results, name) if i == 0 else "", line[i : i + across])
            for name, line in zip(datasets(results), lines, strict=True)
            for i in range(0, len(line), across)
        ]
        elsewhere = any(setting.epsilon != epsilon for setting in plan)
        heading = f"mAP under attack, ε = {epsilon}/255{' unless said' if elsewhere else ''}"
        return _lay_out(blocks, look, heading, run_line(results), "mAP (%)")


def _shortened(grid: _Grid, length: int = 26) -> _Grid:
    """A panel with long names cut in the middle, unless two would become the same."""

    def cut(name: str) -> str:
        return name if len(name) <= length else f"{name[: length // 2]}…{name[-(length // 2 - 1) :]}"

    def cut_all(names: list[str]) -> list[str]:
        return [cut(name) for name in names] if len({cut(name) for name in names}) == len(names) else names

    return replace(grid, row_names=cut_all(grid.row_names), column_names=cut_all(grid.column_names))


def overview(results: Results, folder: Path) -> list[Path]:
    """Write the summary picture overview.png and .pdf; returns the paths."""
    return save_plot(overview_figure(results), folder / "overview.png")
