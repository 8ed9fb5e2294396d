"""Robustness curves: accuracy against epsilon."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reid_attack_bench.report import rows
from reid_attack_bench.report.analysis import controls
from reid_attack_bench.report.labels import CLEAN_ROW, METRICS, describe, run_line
from reid_attack_bench.report.plots.style import (
    heading_width,
    line_styles,
    new_figure,
    percent_axes,
    save_plot,
    styled,
    text_width,
)
from reid_attack_bench.report.results import CellRow, CleanRow, Results, Setting
from reid_attack_bench.text import file_name

CONTROL_COLOUR = "#777777"


@dataclass(frozen=True)
class _Shared:
    """Contents of a run that all its curves show: cells by (target, data set), looks of attacks, best controls."""

    cells: Mapping[tuple[str, str], Sequence[CellRow]]
    looks: Mapping[Setting, tuple[str, str]]
    controls: Mapping[controls.Budget, CellRow]

    @classmethod
    def of(cls, results: Results) -> _Shared:
        cells: dict[tuple[str, str], list[CellRow]] = {}
        for cell in results.cells:
            cells.setdefault((cell.target, cell.dataset), []).append(cell)
        shown = {replace(setting, epsilon=0) for setting in controls.without_controls(results)}
        looks = {variant: look for variant, look in line_styles(results).items() if variant in shown}
        return cls(cells, looks, controls.best_controls(results))


# size: one figure drawn top to bottom
def curves_figure(results: Results, victim: str, dataset: str, shared: _Shared | None = None) -> Figure:
    """Rank-1 and mAP of one victim on one data set against epsilon, with the 95 % intervals of the cells as bands.

    Solid: source = target; dashed: transfer from the other source with the lowest mAP at that epsilon; dotted, for all
    controls: the best one at that epsilon. Epsilon 0 is the clean value. A missing cell breaks its line.
    """
    with styled():
        shared = shared or _Shared.of(results)
        looks, here = shared.looks, rows.over_seeds(shared.cells.get((victim, dataset), ()))
        without_attack = [r for r in results.clean if r.victim == victim and r.dataset == dataset]
        start = next((row for row in without_attack if row.ok), None)
        epsilons = sorted({cell.epsilon for cell in here} | {0})
        best = {
            epsilon: control
            for (target, place, epsilon, pixels, perturbs), control in shared.controls.items()
            if (target, place, pixels, perturbs) == (victim, dataset, None, "query")
        }
        names = {variant: variant.variant for variant in looks}
        words = max(
            [text_width(name, 8.5) for name in [*names.values(), f"{controls.BEST} (random, no model)"]]
            + [text_width("white-box (source = target)", 8.5)]
        )
        heading = f"Robustness of {victim}"
        where = f"{describe(results, dataset)} · {run_line(results, dataset=dataset)}"
        line = f"{where} · bands: 95 % intervals over identities"
        wide, high = max(9.6 + words + 0.7, heading_width(heading, line)), 4.5
        figure = new_figure(wide, high, heading, line)
        drawn: set[Setting] = set()
        for i, metric in enumerate(METRICS):
            axes = figure.add_axes(((0.65 + 4.75 * i) / wide, 0.55 / high, 4.1 / wide, 3.2 / high))
            percent_axes(axes, metric)
            axes.set_xlabel("perturbation budget ε (L∞, in 1/255; 0 = clean)")
            axes.set_xticks(epsilons)
            for variant, (colour, marker) in looks.items():
                for own in (True, False):
                    points: list[CleanRow | CellRow | None] = [start]
                    points += [_point(here, replace(variant, epsilon=e), own) for e in epsilons if e > 0]
                    if all(point is None for point in points[1:]):
                        continue
                    drawn.add(variant)
                    middle, low, top_ends = (
                        [math.nan if p is None else p.value(f"{metric}{end}") for p in points]
                        for end in ("", "_low", "_high")
                    )
                    x = [0] + [e for e in epsilons if e > 0]
                    face = colour if own else "white"
                    axes.plot(
                        x, middle, color=colour, marker=marker, markersize=5, markerfacecolor=face,
                        linewidth=1.5, linestyle="-" if own else "--", markevery=slice(1, None),
                    )  # fmt: skip
                    axes.fill_between(x, low, top_ends, color=colour, alpha=0.1, linewidth=0)
            if best:
                x = sorted(best)
                y = [best[epsilon].value(metric) for epsilon in x]
                if start is not None:
                    x, y = [0, *x], [start.value(metric), *y]
                axes.plot(x, y, color=CONTROL_COLOUR, marker="x", markersize=5, linestyle=":", zorder=3,
                          markevery=slice(start is not None, None))  # fmt: skip
            if start is not None:
                level, low_end, top_end = (start.value(f"{metric}{end}") for end in ("", "_low", "_high"))
                reach = [[max(level - low_end, 0.0)], [max(top_end - level, 0.0)]]
                axes.errorbar([0], [level], reach, color="#333333", marker="o", markersize=6, capsize=3, zorder=4)
        key = [
            Line2D([], [], color=looks[v][0], marker=looks[v][1], markersize=5, label=names[v]) for v in sorted(drawn)
        ]
        if best:
            key.append(Line2D([], [], color=CONTROL_COLOUR, marker="x", markersize=5, linestyle=":",
                              label=f"{controls.BEST} (random, no model)"))  # fmt: skip
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


def _point(here: list[CellRow], setting: Setting, own: bool) -> CellRow | None:
    return rows.strongest(c for c in here if c.setting == setting and c.own == own)


def curves(results: Results, folder: Path) -> list[Path]:
    """Write the curves of every victim on its training data set; victims without a successful cell are left out."""
    shared = _Shared.of(results)
    reached = {place for place, cells in shared.cells.items() if any(cell.ok and cell.epsilon > 0 for cell in cells)}
    places = [(row.victim, row.dataset) for row in rows.training_data_rows(results)]
    return [
        path
        for place in places
        if place in reached
        for path in save_plot(curves_figure(results, *place, shared), folder / (file_name("curve", *place) + ".png"))
    ]
