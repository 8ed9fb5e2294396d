"""Figures of example images: clean, adversarial and amplified perturbation side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from reid_attack_bench.errors import BenchError
from reid_attack_bench.report import labels
from reid_attack_bench.report.plots import style
from reid_attack_bench.report.results import Results, Setting, Sheet
from reid_attack_bench.text import file_name

COLUMNS = 6
"""Maximum number of queries on a sheet."""

GAP = 4
"""Pixels between the images of a triplet."""


def amplified(clean: np.ndarray, adversarial: np.ndarray, epsilon: int) -> np.ndarray:
    """The perturbation × 127 / epsilon around mid-grey 127: the whole budget spans black to white.

    clean, adversarial: uint8 N×H×W×3; epsilon in 1/255. Returns uint8 N×H×W×3.
    """
    change = adversarial.astype(np.float64) - clean.astype(np.float64)
    return np.clip(np.rint(127 + change * (127 / max(epsilon, 1))), 0, 255).astype(np.uint8)


def triplet(clean: np.ndarray, adversarial: np.ndarray, epsilon: int) -> np.ndarray:
    """uint8 H×W×3 clean and adversarial → uint8 H×(3W + gaps)×3: clean, adversarial, amplified perturbation."""
    white = np.full((clean.shape[0], GAP, 3), 255, np.uint8)
    noise = amplified(clean[None], adversarial[None], epsilon)[0]
    return np.concatenate([clean, white, adversarial, white, noise], axis=1)


# size: one figure drawn top to bottom
def sheet_figure(results: Results, source: str, dataset: str) -> Figure:
    """Rows: attacks against `source` on `dataset`; columns: queries, each as clean, adversarial, perturbation.

    Images are enlarged by an integer factor only, without interpolation.

    Raises:
        BenchError: the results hold no images of this source and data set, or clean and adversarial differ in shape.
    """
    chosen = sorted(_sheets(results, source, dataset), key=lambda sheet: sheet.setting)
    if not chosen:
        raise BenchError(f"the results hold no images of attacks on {source} with queries of {dataset}")
    for sheet in chosen:
        if sheet.clean.shape != sheet.adversarial.shape:
            raise BenchError(
                f"images of {sheet.setting.attack} on {source}: clean {sheet.clean.shape} and adversarial "
                f"{sheet.adversarial.shape} differ in shape; craft them again"
            )
    columns = max(1, min(COLUMNS, max(len(sheet.clean) for sheet in chosen)))
    image_height, image_width = chosen[0].clean.shape[1:3]
    scale = max(1, round(200 / image_height))
    height = image_height * scale / style.DPI
    width = (3 * image_width + 2 * GAP) * scale / style.DPI
    with style.styled():
        names = [_name(sheet.setting) for sheet in chosen]
        label = max(style.text_width(line, 9) for name in names for line in name.split("\n")) + 0.35
        heading = f"Attacks crafted on {source}"
        details = f"{labels.describe(results, dataset)} · {labels.run_line(results, dataset=dataset)}"
        line = f"noise: adversarial − clean, amplified by 127/ε around mid-grey · {details}"
        gap_x, gap_y, top, bottom = 0.18, 0.14, 1.05, 0.15
        images_width = columns * (width + gap_x)
        wide = max(label + images_width + 0.1, style.heading_width(heading, line))
        high = top + len(chosen) * (height + gap_y) + bottom
        figure = style.new_figure(wide, high, heading, line)
        for column in range(columns):
            left = label + column * (width + gap_x)
            middle = (left + width / 2) / wide
            figure.text(
                middle, 1 - (top - 0.27) / high, f"query {column + 1}", fontsize=9, fontweight="bold", ha="center"
            )
            # one label per image, as large as fits
            size = min(8.0, 8.0 * (width / 3 - 0.04) / style.text_width("adversarial", 8.0))
            for part, word in enumerate(("clean", "adversarial", "noise")):
                x = (left + (part + 0.5) * width / 3) / wide
                figure.text(x, 1 - (top - 0.07) / high, word, fontsize=size, ha="center")
        for row, (sheet, name) in enumerate(zip(chosen, names, strict=True)):
            from_top = top + row * (height + gap_y)
            figure.text(0.15 / wide, 1 - (from_top + height / 2) / high, name, fontsize=9, va="center", linespacing=1.5)
            for column in range(min(columns, len(sheet.clean))):
                left = label + column * (width + gap_x)
                axes = figure.add_axes((left / wide, 1 - (from_top + height) / high, width / wide, height / high))
                image = triplet(sheet.clean[column], sheet.adversarial[column], sheet.setting.epsilon)
                axes.imshow(image, interpolation="nearest", aspect="auto")
                axes.set_axis_off()
        return figure


def write_sheets(results: Results, folder: Path) -> list[Path]:
    """Write one PNG per (source, data set) with images; returns the paths."""
    groups = sorted({(sheet.source, sheet.dataset) for sheet in results.sheets if len(sheet.clean)})
    return [
        style.save(sheet_figure(results, *group), folder / (file_name("sheet", *group) + ".png")) for group in groups
    ]


def _sheets(results: Results, source: str, dataset: str) -> list[Sheet]:
    return [s for s in results.sheets if s.source == source and s.dataset == dataset and len(s.clean)]


def _name(setting: Setting) -> str:
    """The label of a row: attack, epsilon, other limits, and the amplification, a line each."""
    limits = setting.variant.removeprefix(setting.attack).split(", ")[1:]
    amplification = f"noise × {127 / max(setting.epsilon, 1):.3g}"
    return "\n".join([setting.attack, f"ε = {setting.epsilon}/255", *limits, amplification])
