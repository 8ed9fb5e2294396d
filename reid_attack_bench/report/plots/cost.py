"""Cost: what is left of the mAP against passes and queries of an attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reid_attack_bench.report import rows
from reid_attack_bench.report.labels import run_line
from reid_attack_bench.report.plots.style import (
    heading_width,
    legend_names,
    line_styles,
    new_figure,
    percent_axes,
    save_plot,
    styled,
    text_width,
)
from reid_attack_bench.report.results import Results, Setting


@dataclass(frozen=True)
class _Point:
    """One attack: means over its cells of passes or queries per image and of mAP in %, and how many cells they are."""

    setting: Setting
    plugin: str
    cost: float
    mAP: float  # noqa: N815  as in every table
    cells: int


_AXES = {"passes": "forward and backward passes per image", "queries": "queries per image"}


def costs(results: Results, folder: Path) -> list[Path]:
    """Write the mAP over passes and over queries, a file each, where there is an attack that has any.

    At the headline epsilon, over the cells where source and target are one model. Attacks of one plug-in are joined by
    a line. An attack that passes nothing through the source, such as noise, stands at 0. The legend counts the cells of
    an attack that has fewer than others.
    """
    written: list[Path] = []
    for kind in _AXES:
        points = _points(results, kind)
        if any(point.cost > 0 for point in points):
            written += _figure(results, points, kind, folder / f"cost_{kind}.png")
    return written


def _points(results: Results, kind: str) -> list[_Point]:
    plugins = {entry.label: entry.use for entry in results.record.suite.attacks}
    groups: dict[Setting, list[tuple[float, float]]] = {}
    for cell in rows.over_seeds(rows.ordered_cells(results)):
        if not (cell.ok and cell.own and cell.epsilon == results.headline_epsilon and cell.perturbs == "query"):
            continue
        if cell.impersonate:  # its aim is not to lower the mAP
            continue
        if kind == "queries":
            cost = cell.value("queries_per_image") or float("nan")
        else:
            cost = cell.value("forward_passes") + cell.value("backward_passes")
            cost = float("nan") if cell.query_budget else cost
        if cost == cost:
            groups.setdefault(cell.setting, []).append((cost, cell.value("mAP")))
    means = {setting: np.mean(values, axis=0) for setting, values in groups.items()}
    points = [
        _Point(setting, plugins.get(setting.attack, setting.attack), float(cost), float(left), len(groups[setting]))
        for setting, (cost, left) in means.items()
    ]
    return sorted(points, key=lambda point: (point.plugin, point.cost, point.setting))


def _figure(results: Results, points: list[_Point], kind: str, path: Path) -> list[Path]:
    with styled():
        looks = line_styles(results)
        looks = {point.setting: looks[_without_epsilon(point.setting)] for point in points}
        most = max(point.cells for point in points)
        few = {point.setting: f" ({point.cells} of {most})" if point.cells < most else "" for point in points}
        names: dict[str, tuple[str, str]] = {}
        for setting, look in sorted(looks.items()):
            names |= {name + few[setting]: look for name in legend_names({setting: look})}
        words = max(text_width(name, 8.5) for name in names)
        heading = f"mAP over {kind}, ε = {results.headline_epsilon}/255"
        line = f"white-box (source = target), mean over models and data sets · {run_line(results)}"
        if kind == "queries":
            line = line.replace("white-box (source = target)", "source = target")
        wide, high = max(6.2 + words, heading_width(heading, line)), max(4.4, 1.2 + 0.2 * len(names))
        figure = new_figure(wide, high, heading, line)
        axes = figure.add_axes((0.65 / wide, 0.55 / high, 4.9 / wide, (high - 1.3) / high))
        percent_axes(axes, "mAP")
        axes.set_xlabel(_AXES[kind])
        _draw(axes, points, looks)
        key = [
            Line2D([], [], color=colour, marker=marker, markersize=6, linestyle="none", label=name)
            for name, (colour, marker) in names.items()
        ]
        figure.legend(handles=key, loc="upper left", bbox_to_anchor=(5.6 / wide, 1 - 0.7 / high), fontsize=8.5)
        return save_plot(figure, path)


def _draw(axes: Axes, points: list[_Point], looks: Mapping[Setting, tuple[str, str]]) -> None:
    axes.set_xscale("log")
    costs = [point.cost for point in points if point.cost > 0]
    nothing = min(costs) / 3  # where 0 stands on a logarithmic axis
    at = {point.setting: point.cost or nothing for point in points}
    for plugin in sorted({point.plugin for point in points}):
        same = [point for point in points if point.plugin == plugin]
        axes.plot([at[p.setting] for p in same], [p.mAP for p in same], color="#999999", linewidth=1.2, zorder=2)
    for point in points:
        colour, marker = looks[point.setting]
        axes.plot([at[point.setting]], [point.mAP], color=colour, marker=marker, markersize=7, linestyle="none")
    low = nothing / 1.5 if any(point.cost == 0 for point in points) else min(costs) / 1.5
    axes.set_xlim(low, max(costs) * 1.5)
    ticks = _ticks(min(costs), max(costs))
    names = [f"{tick:,.0f}" for tick in ticks]
    if low < nothing:
        ticks, names = [nothing, *ticks], ["0", *names]
        axes.axvline(nothing * 1.7, color="#dddddd", linewidth=0.8, linestyle=":")
    axes.set_xticks(ticks, names)
    axes.set_xticks([], minor=True)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten in the range; powers alone if those are many, the ends of the range if few."""
    decades = 10.0 ** np.arange(0, np.ceil(np.log10(max(high, 1.0))) + 1)
    for factors in ((1, 2, 5), (1,)):
        found = sorted(float(f * d) for d in decades for f in factors if low / 1.3 <= f * d <= high * 1.3)
        if len(found) <= 7:
            break
    return found if len(found) > 1 else sorted({float(round(low)), float(round(high))})


def _without_epsilon(setting: Setting) -> Setting:
    return Setting(**{**vars(setting), "epsilon": 0})
