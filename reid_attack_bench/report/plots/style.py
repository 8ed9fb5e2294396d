"""Shared style of the figures: fonts, colours, sizes, saving."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from reid_attack_bench.files import replace_file
from reid_attack_bench.report.analysis import controls
from reid_attack_bench.report.labels import METRICS
from reid_attack_bench.report.results import Results, Setting
from reid_attack_bench.text import one_line, visible

DPI = 150

COLOUR_MAP = "cividis"  # readable with colour-vision deficiency and in grey

LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe & Ito

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same bytes on every machine
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
    "text.parse_math": False,  # a $ in a label is a $
    "pdf.fonttype": 42,  # TrueType, embedded: publishers refuse Type 3
    "figure.facecolor": "white",
}

CONTROL = ("#777777", "x")
"""Colour and marker of random controls."""

BOLD = 1.18
"""Upper bound of the width of bold text relative to regular text."""


@contextmanager
def styled() -> Iterator[None]:
    """Context with the style of the figures, independent of the user's matplotlibrc."""
    defaults = {k: v for k, v in dict.items(matplotlib.rcParamsDefault) if not k.startswith(("backend", "toolbar"))}
    parameters: Any = {**defaults, **STYLE}
    with matplotlib.rc_context(parameters), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a label in another script: it is in the tables
        yield


def new_figure(width: float, height: float, heading: str, line: str) -> Figure:
    """A figure of `width` × `height` inches with an Agg canvas, a heading and a line of details below it."""
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.text(0.15 / width, 1 - 0.12 / height, one_line(heading), fontsize=12, fontweight="bold", va="top")
    figure.text(0.15 / width, 1 - 0.40 / height, one_line(line), fontsize=8.5, va="top", color="#333333")
    return figure


def heading_width(heading: str, line: str) -> float:
    """Width of the heading and its line in inches."""
    return 0.4 + max(BOLD * text_width(heading, 12), text_width(line, 8.5))


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG atomically, without date or software version; returns `path`."""
    content = io.BytesIO()
    with styled():
        figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    return replace_file(path, content.getvalue())


def save_plot(figure: Figure, path: Path) -> list[Path]:
    """Write a figure to `path` as PNG and next to it as PDF, without date or software version; returns both paths."""
    content = io.BytesIO()
    with styled():
        figure.savefig(content, format="pdf", metadata=dict.fromkeys(("Creator", "Producer", "CreationDate")))
    return [save(figure, path), replace_file(path.with_suffix(".pdf"), content.getvalue())]


@functools.lru_cache(maxsize=10_000)  # measuring is slow, and labels repeat in every figure
def text_width(text: str, size: float) -> float:
    """Width in inches of a line of text at `size` points."""
    if not text.strip():
        return 0.0
    with matplotlib.rc_context({"text.parse_math": False}):
        return float(TextPath((0, 0), visible(text), size=size).get_extents().width) / 72


def line_styles(results: Results) -> dict[Setting, tuple[str, str]]:
    """Colour and marker of every attack variant, equal in all figures; one of all controls. Keys have epsilon 0."""
    shown = {replace(setting, epsilon=0) for setting in controls.without_controls(results)}
    looks = {
        variant: (LINE_COLOURS[i % len(LINE_COLOURS)], MARKERS[i % len(MARKERS)])
        for i, variant in enumerate(sorted(shown))
    }
    return dict.fromkeys(sorted({replace(setting, epsilon=0) for setting in results.settings}), CONTROL) | looks


def legend_names(looks: Mapping[Setting, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Name → look, for a legend: the attack in words, and one line for all controls."""
    names = {variant: variant.variant for variant in looks}
    return {"random controls" if look == CONTROL else names[variant]: look for variant, look in looks.items()}


def percent_axes(axes: Axes, metric: str) -> None:
    axes.set_ylim(-2, 102)
    axes.set_ylabel(f"{METRICS[metric]} (%)")
    axes.grid(True)
