"""Heat maps and the overview figure, drawn without pyplot; the bytes are the same on every run.

Every `*_figure` function returns a Figure; `heat_maps` and `overview` save each as PNG and PDF.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from reid_attack_bench.report import labels
from reid_attack_bench.report.analysis import controls
from reid_attack_bench.report.labels import (
    METRICS,
    datasets,
    describe,
    run_line,
)
from reid_attack_bench.report.plots.panels import Block, Look, Panel, lay_out, panels_of
from reid_attack_bench.report.plots.style import (
    save_plot,
    styled,
    text_width,
)
from reid_attack_bench.report.results import Results, Setting
from reid_attack_bench.text import file_name


def heat_map_figure(results: Results, setting: Setting, metric: str) -> Figure:
    """Source × target matrix of one attack setting, one panel per data set; metric: "rank1" or "mAP", in %."""
    return _heat_map(results, setting, metric, [line[0] for line in panels_of(results, [setting], metric)])


def _heat_map(results: Results, setting: Setting, metric: str, found: list[Panel]) -> Figure:
    """The figure of one panel per data set."""
    with styled():
        panels = [
            replace(panel, title=describe(results, name)) for name, panel in zip(datasets(results), found, strict=True)
        ]
        size = max(max(panel.values.shape) for panel in panels)
        width = min(max(8.0 / size, 0.3), 0.85)
        look = Look(width, min(width, 0.42), 9 if width > 0.5 else 7.5, 9 if width > 0.5 else 6.5, 1)
        across = max(1, int(15 / (max(panel.values.shape[1] for panel in panels) * width + 1.5)))
        blocks = [Block("", panels[i : i + across]) for i in range(0, len(panels), across)]
        heading = f"{METRICS[metric]} under {setting.variant}, ε = {setting.epsilon}/255"
        return lay_out(blocks, look, heading, run_line(results, setting), f"{METRICS[metric]} (%)")


def heat_maps(results: Results, folder: Path) -> list[Path]:
    """Write one heat map per attack setting and metric; returns the paths."""
    plan = results.settings
    lines = {metric: panels_of(results, plan, metric) for metric in METRICS}  # of all settings: the cells are read once
    written: list[Path] = []
    for i, setting in enumerate(plan):
        for metric in METRICS:
            figure = _heat_map(results, setting, metric, [line[i] for line in lines[metric]])
            written += save_plot(figure, folder / _heat_map_name(setting, metric))
    return written


def _heat_map_name(setting: Setting, metric: str) -> str:
    return file_name("matrix", setting.attack, setting.budget, metric) + ".png"


def overview_figure(results: Results) -> Figure:
    """mAP matrices of the attacks at one epsilon, a block of panels per data set.

    The epsilon is the headline epsilon, or the nearest one that was run: attacks at different budgets side by side
    would be compared as equals. Those that were not run at it are named below the heading. The controls are one row.
    """
    with styled():
        epsilon = labels.first_epsilon(results)
        plan = [setting for setting in controls.without_controls(results) if setting.epsilon == epsilon]
        titles = [setting.variant for setting in plan]
        lines = panels_of(results, plan, "mAP")
        size = max((max(panel.values.shape) for line in lines for panel in line), default=1)
        cell = min(max(13.0 / (max(len(plan), 1) * size), 0.24 if size <= 10 else 2.6 / size), 0.5)
        look = Look(cell, cell, min(8.0, cell * 72 * 0.75), min(8.5, cell * 72 * 0.45), 0)
        widest = max([size * cell, *(text_width(title, 9) for title in titles)]) + 0.22
        across = max(1, int(9.6 / widest))
        across = math.ceil(len(plan) / math.ceil(len(plan) / across))  # rows of equal length
        lines = [[_shortened(panel) for panel in line] for line in lines]
        blocks = [
            Block(describe(results, name) if i == 0 else "", line[i : i + across])
            for name, line in zip(datasets(results), lines, strict=True)
            for i in range(0, len(line), across)
        ]
        line = " · ".join(filter(None, (run_line(results), labels.elsewhere(results, epsilon))))
        return lay_out(blocks, look, f"mAP under attack, ε = {epsilon}/255", line, "mAP (%)")


def _shortened(panel: Panel, length: int = 26) -> Panel:
    """The panel with long names abbreviated in the middle, unless that makes two names equal."""

    def cut(name: str) -> str:
        return name if len(name) <= length else f"{name[: length // 2]}…{name[-(length // 2 - 1) :]}"

    def cut_all(names: list[str]) -> list[str]:
        return [cut(name) for name in names] if len({cut(name) for name in names}) == len(names) else names

    return replace(panel, row_names=cut_all(panel.row_names), column_names=cut_all(panel.column_names))


def overview(results: Results, folder: Path) -> list[Path]:
    """Write overview.png and .pdf; returns the paths."""
    return save_plot(overview_figure(results), folder / "overview.png")
