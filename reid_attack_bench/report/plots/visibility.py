"""Attack strength against visibility."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reid_attack_bench.report.labels import datasets, describe, run_line
from reid_attack_bench.report.plots.style import (
    heading_width,
    legend_names,
    line_styles,
    new_figure,
    save_plot,
    styled,
    text_width,
)
from reid_attack_bench.report.results import Results


# size: one figure drawn top to bottom
def visibility_figure(results: Results) -> Figure:
    """Mean drop in mAP against mean SSIM and mean L2, one point per attack setting for white-box and for transfer."""
    with styled():
        done = [cell for cell in results.cells if cell.ok]
        looks = line_styles(results)
        names = legend_names(looks)
        words = max(text_width(name, 8.5) for name in (*names, "white-box (source = target)"))
        heading = "Attack strength against visibility"
        places = "; ".join(describe(results, name) for name in datasets(results))
        epsilons = sorted({setting.epsilon for setting in results.settings})
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
            for setting in results.settings:
                colour, marker = looks[replace(setting, epsilon=0)]
                for own in (True, False):
                    chosen = [c for c in done if c.setting == setting and c.own == own]
                    pairs = [(c.value(column), c.value("drop_mAP")) for c in chosen]
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
            Line2D([], [], color=colour, marker=marker, markersize=6, linestyle="none", label=name)
            for name, (colour, marker) in names.items()
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
