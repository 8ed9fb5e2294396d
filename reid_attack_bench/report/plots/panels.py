"""Source × target panels of the heat maps and the overview figure, and their layout on one page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from reid_attack_bench.report import rows
from reid_attack_bench.report.analysis import controls
from reid_attack_bench.report.labels import (
    CLEAN_ROW,
    SOURCE_AXIS,
    TARGET_AXIS,
    datasets,
)
from reid_attack_bench.report.plots.style import (
    BOLD,
    COLOUR_MAP,
    heading_width,
    new_figure,
    text_width,
)
from reid_attack_bench.report.results import CellRow, CleanRow, Results, Setting

_READABLE = 3.5  # points: smaller numbers cannot be read, and drawing thousands of them takes long

_TOP, _GAP = 0.62, 0.22  # inches: above the first block, and between panels


@dataclass(frozen=True)
class Panel:
    """One panel: values in %, NaN where missing; `gaps` gives the reason ("missing" or "not run").

    The first `above` rows are not of a source: without an attack, and the best control of the budget if one was run.
    """

    title: str
    row_names: list[str]
    column_names: list[str]
    values: np.ndarray
    gaps: list[list[str]]
    own: np.ndarray
    above: int = 1


@dataclass(frozen=True)
class Look:
    """Sizes of a panel: cell width and height in inches, font sizes in points, digits after the point."""

    width: float
    height: float
    label_size: float
    number_size: float
    digits: int

    def shows_numbers(self) -> bool:
        if self.number_size < _READABLE:
            return False
        widest = text_width(f"{88.8:.{self.digits}f}", self.number_size)
        return widest <= 0.92 * self.width and self.number_size / 72 <= 0.8 * self.height


def panels_of(results: Results, plan: list[Setting], metric: str) -> list[list[Panel]]:
    """Panels by data set, then by setting."""
    cells, best = rows.over_seeds(results.cells), controls.best_controls(results)
    lines = []
    for dataset in datasets(results):
        here = [cell for cell in cells if cell.dataset == dataset]
        clean = {row.victim: row for row in results.clean if row.dataset == dataset}
        lines.append([_panel(here, clean, best, dataset, setting, metric) for setting in plan])
    return lines


def _panel(
    here: list[CellRow],
    clean_rows: dict[str, CleanRow],
    best: dict[controls.Budget, CellRow],
    dataset: str,
    setting: Setting,
    metric: str,
) -> Panel:
    """The panel of one setting on one data set; `best`: the best control of each budget."""
    # the same axes for every attack, so that panels can be compared
    sources = sorted({cell.source for cell in here})
    targets = sorted({cell.target for cell in here} | set(clean_rows))
    found = {(cell.source, cell.target): cell for cell in here if cell.setting == setting}
    lines: list[list[CellRow | CleanRow | None]] = [[clean_rows.get(target) for target in targets]]
    budget = (dataset, setting.epsilon, setting.pixels or None, setting.perturbs)
    random: list[CellRow | CleanRow | None] = [best.get((target, *budget)) for target in targets]
    if compared := any(random) and not any(controls.is_control(cell) for cell in found.values()):
        lines.append(random)
    above = [CLEAN_ROW, *([controls.BEST] if compared else [])]
    lines += [[found.get((source, target)) for target in targets] for source in sources]
    values = np.array([
        [row.value(metric) if row is not None and row.ok else math.nan for row in line] for line in lines
    ]).reshape(len(lines), len(targets))  # fmt: skip
    gaps = [["not run" if row is None else "missing" for row in line] for line in lines]
    own = np.array([
        [source == target or (isinstance(row, CellRow) and row.own) for target, row in zip(targets, line, strict=True)]
        for source, line in zip(sources, lines[len(above) :], strict=True)
    ]).reshape(len(sources), len(targets))  # fmt: skip
    own = np.concatenate([np.zeros((len(above), len(targets)), bool), own])
    return Panel(setting.variant, [*above, *sources], targets, values, gaps, own, len(above))


def _draw_panel(axes: Axes, panel: Panel, look: Look, row_labels: bool, column_labels: bool) -> Any:
    count_rows, count_columns = panel.values.shape
    image = axes.imshow(
        np.ma.masked_invalid(panel.values), cmap=COLOUR_MAP, norm=Normalize(0, 100), aspect="auto", interpolation="none"
    )
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xticks(range(count_columns), panel.column_names if column_labels else [], fontsize=look.label_size)
    axes.set_yticks(range(count_rows), panel.row_names if row_labels else [], fontsize=look.label_size)
    axes.tick_params(length=0, pad=3)
    if column_labels and _turned(panel.column_names, look):
        for label in axes.get_xticklabels():
            label.set_rotation(90)
    axes.axhline(panel.above - 0.5, color="white", linewidth=4)  # separates what has no source
    widest_word = max(text_width(word, look.number_size) for word in ("missing", "not run"))
    gap_size = look.number_size * min(1.0, 0.8 * look.width / widest_word)
    for y in range(count_rows):
        for x in range(count_columns):
            value = panel.values[y, x]
            if math.isnan(value):
                axes.add_patch(
                    Rectangle(
                        (x - 0.5, y - 0.5), 1, 1, facecolor="white", edgecolor="#999999", hatch="////", linewidth=0.4
                    )
                )
                if gap_size >= 5:
                    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
                    axes.text(x, y, panel.gaps[y][x], ha="center", va="center", fontsize=gap_size, bbox=box)
            elif look.shows_numbers():
                shade = "black" if value > 48 else "white"
                text = f"{value:.{look.digits}f}"
                axes.text(x, y, text, ha="center", va="center", fontsize=look.number_size, color=shade)
    inset_x, inset_y = 0.02 / look.width, 0.02 / look.height
    thick = 1.0 if min(look.width, look.height) > 0.3 else 0.7
    for y, x in np.argwhere(panel.own):
        for colour, line in (("white", 2.6 * thick), ("black", 1.2 * thick)):
            corner = (x - 0.5 + inset_x, y - 0.5 + inset_y)
            size = (1 - 2 * inset_x, 1 - 2 * inset_y)
            axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=line, zorder=3))
    axes.set_xlim(-0.5, count_columns - 0.5)
    axes.set_ylim(count_rows - 0.5, -0.5)
    return image


def _turned(names: list[str], look: Look) -> bool:
    return any(text_width(name, look.label_size) > 0.95 * look.width for name in names)


@dataclass(frozen=True)
class Block:
    """Panels side by side under one title."""

    title: str
    panels: list[Panel]


@dataclass(frozen=True)
class _Layout:
    """Positions of the panels on a page, in inches from the upper left corner.

    Attributes:
        panels: for each block its panels as (left, top, width, height).
        right, end: right edge of the widest block, lower edge of the lowest labels.
        title_height: height of the line of panel titles.
        short: whether a panel is too low for an axis label on one line.
    """

    panels: list[list[tuple[float, float, float, float]]]
    right: float
    end: float
    title_height: float
    short: bool


def _has_row_labels(block: list[Panel], i: int) -> bool:
    return i == 0 or block[i].row_names != block[i - 1].row_names


def _below(blocks: list[list[Panel]], b: int, i: int) -> int | None:
    """The next block with a panel in column `i`."""
    return next((later for later in range(b + 1, len(blocks)) if len(blocks[later]) > i), None)


def _has_column_labels(blocks: list[list[Panel]], b: int, i: int) -> bool:
    later = _below(blocks, b, i)
    return later is None or blocks[b][i].column_names != blocks[later][i].column_names


def _layout(lines: list[Block], look: Look, title_size: float) -> _Layout:
    blocks = [block.panels for block in lines]
    label_width = max(text_width(n, look.label_size) for block in blocks for g in block for n in g.row_names) + 0.12
    turned = any(_turned(g.column_names, look) for block in blocks for g in block)
    names = [n for block in blocks for g in block for n in g.column_names]
    line = look.label_size / 72
    label_height = (max((text_width(n, look.label_size) for n in names), default=0) if turned else line) + 0.12

    def size_of(panel: Panel) -> tuple[float, float]:
        height, width = (size * cell for size, cell in zip(panel.values.shape, (look.height, look.width), strict=True))
        return height, max(width, 0.3)

    # equal column widths in every block keep labels clear of the titles below
    columns = range(max((len(block) for block in blocks), default=0))
    lead = [label_width * any(_has_row_labels(block, i) for block in blocks if len(block) > i) for i in columns]
    room = [
        max(max(size_of(block[i])[1], text_width(block[i].title, title_size)) for block in blocks if len(block) > i)
        for i in columns
    ]
    short = any(block[0].values.shape[0] * look.height <= 1.9 for block in blocks if block)
    title_height, axis_words = title_size / 72 + 0.16, 0.5 if short else 0.32
    panels: list[list[tuple[float, float, float, float]]] = []
    y, right, end = _TOP, 0.0, 0.0
    for b, block in enumerate(blocks):
        x, deepest, place = axis_words, 0.0, []
        y += (title_height if any(panel.title for panel in block) else 0.0) + (0.3 if lines[b].title else 0.0)
        for i, panel in enumerate(block):
            height, width = size_of(panel)
            x += lead[i]
            place.append((x, y, width, height))
            x += room[i] + _GAP
            under = height + (label_height if _has_column_labels(blocks, b, i) else 0.0)
            # labels under the last panel of a column take no room from the blocks below
            deepest = max(deepest, height if _below(blocks, b, i) is None else under)
            end = max(end, y + under)
        panels.append(place)
        right = max(right, x)
        y += deepest + _GAP * 0.4
    return _Layout(panels, right, end, title_height, short)


def lay_out(lines: list[Block], look: Look, heading: str, subheading: str, scale: str) -> Figure:
    """Figure of vertically stacked blocks, sized so that labels do not overlap whatever the length of the names.

    A panel has row labels if they differ from those of its left neighbour, column labels if they differ from those of
    the panel below.
    """
    blocks = [block.panels for block in lines]
    title_size = min(10.0, look.label_size + 1.5)
    layout = _layout(lines, look, title_size)
    titles = [place[0][0] + BOLD * text_width(b.title, 10) for b, place in zip(lines, layout.panels, strict=True)]
    right = max(layout.right, *(title + _GAP for title in titles))  # the colour bar is clear of long titles too
    wide = max(right + 0.85, heading_width(heading, subheading), 6.0, *titles)
    high = layout.end + (0.8 if layout.short else 0.68)
    figure = new_figure(wide, high, heading, subheading)
    image = None
    for b, block in enumerate(blocks):
        if lines[b].title:
            height = 0.08 + (layout.title_height if any(panel.title for panel in block) else 0.0)
            place_y = 1 - (layout.panels[b][0][1] - height) / high
            figure.text(layout.panels[b][0][0] / wide, place_y, lines[b].title, fontsize=10, fontweight="bold")
        for i, panel in enumerate(block):
            left, from_top, width, height = layout.panels[b][i]
            axes = figure.add_axes((left / wide, 1 - (from_top + height) / high, width / wide, height / high))
            labelled = _has_row_labels(block, i), _has_column_labels(blocks, b, i)
            image = _draw_panel(axes, panel, look, *labelled)
            axes.set_title(panel.title, fontsize=title_size, loc="left", pad=5)
            # axis labels only on the outer panels
            if i == 0:
                axes.set_ylabel(SOURCE_AXIS if height > 1.9 else SOURCE_AXIS.replace(" (", "\n("), fontsize=9)
                axes.yaxis.set_label_coords(-(left - (0.4 if layout.short else 0.24)) / width, 0.5)
            axis = TARGET_AXIS if width > 1.6 else TARGET_AXIS.replace(" (", "\n(")
            narrow = max(text_width(line, 9) for line in axis.split("\n")) > width + _GAP
            if _below(blocks, b, i) is None and not (i and narrow):  # would meet that of its left neighbour
                axes.set_xlabel(axis, fontsize=9)
    first, last = layout.panels[0][0], layout.panels[-1][0]
    bar_height = min(last[1] + last[3] - first[1], 4.5)
    bar_axes = figure.add_axes(
        ((right + 0.02) / wide, 1 - (first[1] + bar_height) / high, 0.14 / wide, bar_height / high)
    )
    if image is not None:
        figure.colorbar(image, cax=bar_axes, label=scale, ticks=range(0, 101, 20))
    key = [
        Patch(facecolor="white", edgecolor="black", linewidth=1.2, label="white-box (source = target)"),
        Patch(facecolor="white", edgecolor="#999999", hatch="////", label="no value (missing or not run)"),
    ]
    figure.legend(handles=key, loc="lower left", bbox_to_anchor=(0.1 / wide, 0.06 / high), ncols=2, fontsize=8)
    return figure
