"""Heat maps, robustness curves and a summary picture, drawn without pyplot and the same bytes on every run.

Every `*_figure` function returns a Figure for inspection; `heat_maps`, `curves`, `overview` and `visibility` save each
as a PNG and, with the same name, as a PDF.
"""

from __future__ import annotations

import functools
import hashlib
import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.textpath import TextPath

from reid_attack_bench.report import tables
from reid_attack_bench.report.results import Results
from reid_attack_bench.report.tables import Row, Setting
from reid_attack_bench.store import replace_file

DPI = 150
COLOUR_MAP = "cividis"  # readable with colour-vision deficiency and in grey
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe & Ito
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture everywhere
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType, embedded: publishers refuse Type 3
    "figure.facecolor": "white",
}
BOLD = 1.18
"""Bold text is at most this much wider."""
METRICS = {"rank1": "Rank-1", "mAP": "mAP"}
SOURCE_AXIS = "source model (attack crafted on)"
TARGET_AXIS = "target model (evaluated)"
CLEAN_ROW = "clean (no attack)"


@contextmanager
def styled() -> Iterator[None]:
    """The style of every picture, whatever the user's matplotlibrc says; restored afterwards."""
    defaults = {k: v for k, v in dict.items(matplotlib.rcParamsDefault) if not k.startswith(("backend", "toolbar"))}
    parameters: Any = {**defaults, **STYLE}
    with matplotlib.rc_context(parameters):
        yield


def new_figure(width: float, height: float, heading: str, line: str) -> Figure:
    """A figure of `width` × `height` inches with an Agg canvas, a heading and a line of details below it."""
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.text(0.15 / width, 1 - 0.12 / height, heading, fontsize=12, fontweight="bold", va="top")
    figure.text(0.15 / width, 1 - 0.40 / height, line, fontsize=8.5, va="top", color="#333333")
    return figure


def heading_width(heading: str, line: str) -> float:
    """Inches that the heading and its line need."""
    return 0.4 + max(BOLD * text_width(heading, 12), text_width(line, 8.5))


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG in one step, without date or software version; returns `path`."""
    content = io.BytesIO()
    with styled():
        figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    return replace_file(path, content.getvalue())


def save_plot(figure: Figure, path: Path) -> list[Path]:
    """Write a plot as `path`, a PNG, and beside it as a PDF without date or software version; returns both."""
    content = io.BytesIO()
    with styled():
        figure.savefig(content, format="pdf", metadata=dict.fromkeys(("Creator", "Producer", "CreationDate")))
    return [save(figure, path), replace_file(path.with_suffix(".pdf"), content.getvalue())]


def file_name(*parts: str) -> str:
    """A portable file name out of labels; labels with other characters get a short hash so that names stay unique."""
    joined = "_".join(parts)
    plain = re.sub(r"[^A-Za-z0-9._@+=-]+", "-", joined)
    if plain == joined:
        return plain
    return f"{plain}-{hashlib.sha256(joined.encode()).hexdigest()[:6]}"


@functools.lru_cache(maxsize=10_000)  # measuring is slow, and labels repeat in every picture
def text_width(text: str, size: float) -> float:
    """Width in inches of a line of text at `size` points."""
    if not text.strip():
        return 0.0
    return float(TextPath((0, 0), text.replace("$", r"\$"), size=size).get_extents().width) / 72


def is_synthetic(results: Results, dataset: str | None = None) -> bool:
    """Whether any figure (of one data set) comes from synthetic data."""
    return any(tables.is_true(value) for value in _column(results, "synthetic", dataset))


def datasets(results: Results) -> list[str]:
    """Every data set of the run, sorted."""
    return sorted(set(_column(results, "dataset", None)))


def query_count(results: Results, dataset: str) -> int | None:
    """Number of queries of a data set, None where no row says."""
    counts = {int(value) for value in _column(results, "queries", dataset) if not tables.is_missing(value)}
    return max(counts, default=None)


def _column(results: Results, name: str, dataset: str | None) -> list[Any]:
    """A column of the clean table and of the cells, one after the other, for one data set or all."""
    values: list[Any] = []
    for frame in (results.clean, results.cells):
        values += frame[name].tolist() if dataset is None else frame.loc[frame["dataset"] == dataset, name].tolist()
    return values


def describe(results: Results, dataset: str) -> str:
    """A data set in words, for panel titles: "plaza, 320 queries, synthetic data"."""
    queries = query_count(results, dataset)
    parts = [dataset] + ([] if queries is None else [f"{queries:,} queries"])
    return ", ".join(parts + (["synthetic data"] if is_synthetic(results, dataset) else []))


def run_line(results: Results, setting: Setting | None = None) -> str:
    """What every picture says about the run: suite, seed, how many seeds (of one attack), "synthetic"."""
    named = tables.rows(results.cells[["attack", "epsilon", "pixels", "perturbs", "seed"]].drop_duplicates())
    seeds: dict[Setting, set[int]] = {}
    for cell in named:
        if not tables.is_missing(cell["seed"]) and setting in (None, tables.setting_of(cell)):
            seeds.setdefault(tables.setting_of(cell), set()).add(int(cell["seed"]))
    counts = {len(each) for each in seeds.values()}
    line = f"suite {results.suite}, seed {results.seed}"
    if max(counts, default=1) > 1:
        line += f", means over {'up to ' if len(counts) > 1 else ''}{max(counts)} seeds of an attack"
    return line + (" · SYNTHETIC DATA" if is_synthetic(results) else "")


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
    cells, unharmed = tables.over_seeds(tables.rows(results.cells)), tables.rows(results.clean)
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
    found = {(cell["source"], cell["target"]): cell for cell in here if tables.setting_of(cell) == setting}
    lines: list[list[Row | None]] = [[unharmed.get(target) for target in targets]]
    lines += [[found.get((source, target)) for target in targets] for source in sources]
    ok = [[row is not None and row["status"] == "ok" for row in line] for line in lines]
    values = np.array([
        [tables.number(row[metric]) if row is not None and good else math.nan for row, good in zip(*pair, strict=True)]
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
        for setting in tables.settings(results)
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
        for setting in sorted(tables.settings(results), key=lambda s: (abs(s.epsilon - epsilon), s)):
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


# Curves


def _lines(results: Results) -> dict[Setting, tuple[str, str]]:
    """Colour and marker of every attack variant: the same in every picture. Keys have epsilon 0."""
    variants = sorted({replace(setting, epsilon=0) for setting in tables.settings(results)})
    return {
        variant: (LINE_COLOURS[i % len(LINE_COLOURS)], MARKERS[i % len(MARKERS)]) for i, variant in enumerate(variants)
    }


def _percent_axes(axes: Axes, metric: str) -> None:
    axes.set_ylim(-2, 102)
    axes.set_ylabel(f"{METRICS[metric]} (%)")
    axes.grid(True)


def curves_figure(results: Results, victim: str, dataset: str) -> Figure:
    """Rank-1 and mAP of one victim on one data set against epsilon, with the 95 % intervals of the cells as bands.

    Solid: white-box (or the attack's own queries); dashed: transfer from the other source with the lowest mAP at
    that epsilon. Epsilon 0 is the clean figure. A missing cell breaks its line.
    """
    with styled():
        reached = (c for c in tables.rows(results.cells) if c["target"] == victim and c["dataset"] == dataset)
        here = tables.over_seeds(reached)
        unharmed = [r for r in tables.rows(results.clean) if r["victim"] == victim and r["dataset"] == dataset]
        start = next((row for row in unharmed if row["status"] == "ok"), None)
        epsilons = sorted({int(cell["epsilon"]) for cell in here} | {0})
        looks = _lines(results)
        names = {variant: variant.variant for variant in looks}
        words = max(
            [text_width(name, 8.5) for name in names.values()] + [text_width("white-box (source = target)", 8.5)]
        )
        heading = f"Robustness of {victim}"
        line = f"{describe(results, dataset)} · {run_line(results)} · bands: 95 % intervals over queries"
        wide, high = max(9.6 + words + 0.7, heading_width(heading, line)), 4.5
        figure = new_figure(wide, high, heading, line)
        drawn: set[Setting] = set()
        for i, metric in enumerate(METRICS):
            axes = figure.add_axes(((0.65 + 4.75 * i) / wide, 0.55 / high, 4.1 / wide, 3.2 / high))
            _percent_axes(axes, metric)
            axes.set_xlabel("perturbation budget ε (L∞, in 1/255; 0 = clean)")
            axes.set_xticks(epsilons)
            for variant, (colour, marker) in looks.items():
                for own in (True, False):
                    points = [start] + [_point(here, replace(variant, epsilon=e), own) for e in epsilons if e > 0]
                    if all(point is None for point in points[1:]):
                        continue
                    drawn.add(variant)
                    middle, low, top_ends = (
                        [math.nan if p is None else tables.number(p[f"{metric}{end}"]) for p in points]
                        for end in ("", "_low", "_high")
                    )
                    x = [0] + [e for e in epsilons if e > 0]
                    face = colour if own else "white"
                    axes.plot(
                        x, middle, color=colour, marker=marker, markersize=5, markerfacecolor=face,
                        linewidth=1.5, linestyle="-" if own else "--", markevery=slice(1, None),
                    )  # fmt: skip
                    axes.fill_between(x, low, top_ends, color=colour, alpha=0.1, linewidth=0)
            if start is not None:
                level, low_end, top_end = (tables.number(start[f"{metric}{end}"]) for end in ("", "_low", "_high"))
                reach = [[max(level - low_end, 0.0)], [max(top_end - level, 0.0)]]
                axes.errorbar([0], [level], reach, color="#333333", marker="o", markersize=6, capsize=3, zorder=4)
        key = [
            Line2D([], [], color=looks[v][0], marker=looks[v][1], markersize=5, label=names[v]) for v in sorted(drawn)
        ]
        key += [
            Line2D([], [], color="#333333", marker="o", markersize=6, linestyle="none", label=CLEAN_ROW),
            Line2D([], [], color="#555555", marker="o", markersize=5, label="white-box (source = target)"),
            Line2D([], [], color="#555555", marker="o", markersize=5, markerfacecolor="white", linestyle="--",
                   label="transfer (strongest source)"),
        ]  # fmt: skip
        figure.legend(
            handles=key, loc="upper left", bbox_to_anchor=(9.55 / wide, 3.85 / high), fontsize=8.5, handlelength=2.8
        )
        return figure


def _point(here: list[Row], setting: Setting, own: bool) -> Row | None:
    return tables.strongest(
        c for c in here if tables.setting_of(c) == setting and (tables.kind_of(c) != "transfer") == own
    )


def curves(results: Results, folder: Path) -> list[Path]:
    """Write the curves of every victim on its home data set; victims that no attack reached are left out."""
    reached = {
        (cell["target"], cell["dataset"])
        for cell in tables.rows(results.cells)
        if cell["status"] == "ok" and int(cell["epsilon"]) > 0
    }
    places = [(row["victim"], row["dataset"]) for row in tables.home_rows(results)]
    return [
        path
        for place in places
        if place in reached
        for path in save_plot(curves_figure(results, *place), folder / (file_name("curve", *place) + ".png"))
    ]


def visibility_figure(results: Results) -> Figure:
    """Mean drop in mAP against mean SSIM and mean L2, one point per attack setting, white-box and transfer apart."""
    with styled():
        done = [cell for cell in tables.rows(results.cells) if cell["status"] == "ok"]
        looks = _lines(results)
        words = max([text_width(v.variant, 8.5) for v in looks] + [text_width("white-box (source = target)", 8.5)])
        heading = "Attack strength against visibility"
        places = "; ".join(describe(results, name) for name in datasets(results))
        epsilons = sorted({setting.epsilon for setting in tables.settings(results)})
        budget = "small numbers: ε in 1/255" if len(epsilons) > 1 else f"ε = {', '.join(map(str, epsilons))}/255"
        line = f"means over all cells; {budget} · {places} · {run_line(results)}"
        wide, high = max(9.6 + words + 0.7, heading_width(heading, line)), 4.5
        figure = new_figure(wide, high, heading, line)
        columns = {
            "ssim": "mean SSIM to the clean image (1 = identical)",
            "l2": "mean L2 norm of the perturbation (colour values in [0, 1])",
        }
        for i, (column, label) in enumerate(columns.items()):
            axes = figure.add_axes(((0.65 + 4.75 * i) / wide, 0.55 / high, 4.1 / wide, 3.2 / high))
            axes.grid(True)
            axes.set_xlabel(label)
            axes.set_ylabel("mean drop in mAP (percentage points)")
            for setting in tables.settings(results):
                colour, marker = looks[replace(setting, epsilon=0)]
                for own in (True, False):
                    chosen = [
                        c for c in done if tables.setting_of(c) == setting and (tables.kind_of(c) != "transfer") == own
                    ]
                    pairs = [(tables.number(c[column]), tables.number(c["drop_mAP"])) for c in chosen]
                    pairs = [pair for pair in pairs if not any(map(math.isnan, pair))]
                    if not pairs:
                        continue
                    x, y = np.mean(pairs, axis=0)
                    face = colour if own else "white"
                    axes.plot(x, y, color=colour, marker=marker, markersize=7, markerfacecolor=face, linestyle="none")
                    if len(epsilons) > 1:
                        axes.annotate(
                            str(setting.epsilon),
                            (x, y),
                            (5, 3),
                            textcoords="offset points",
                            fontsize=7,
                            color="#333333",
                        )
        key = [
            Line2D([], [], color=colour, marker=marker, markersize=6, linestyle="none", label=variant.variant)
            for variant, (colour, marker) in looks.items()
        ]
        for label, face in (("white-box (source = target)", "#555555"), ("transfer", "white")):
            key.append(
                Line2D(
                    [],
                    [],
                    color="#555555",
                    marker="o",
                    markersize=6,
                    markerfacecolor=face,
                    linestyle="none",
                    label=label,
                )
            )
        figure.legend(handles=key, loc="upper left", bbox_to_anchor=(9.55 / wide, 3.85 / high), fontsize=8.5)
        return figure


def visibility(results: Results, folder: Path) -> list[Path]:
    """Write visibility.png and .pdf; returns the paths."""
    return save_plot(visibility_figure(results), folder / "visibility.png")
