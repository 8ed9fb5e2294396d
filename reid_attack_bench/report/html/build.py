"""report.html: the report as one self-contained file without network access.

The page is a Jinja template with its style and script in the folder `template`. Charts are Vega-Lite, specified with
Altair and drawn by the embedded Vega bundle. The script builds tables, matrix and gallery from one block of JSON.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import matplotlib
import vl_convert
from matplotlib.colors import to_hex

from reid_attack_bench import __version__
from reid_attack_bench.metrics import catalogue
from reid_attack_bench.report import labels, rows
from reid_attack_bench.report.analysis.conclude import Conclusions
from reid_attack_bench.report.analysis.controls import Budget, is_control
from reid_attack_bench.report.html.charts import COLOURS, curve, scatter
from reid_attack_bench.report.html.examples import examples
from reid_attack_bench.report.html.prose import prose
from reid_attack_bench.report.plots import style
from reid_attack_bench.report.results import CellRow, Results, Setting
from reid_attack_bench.report.rows import Row
from reid_attack_bench.text import visible

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_ENGINE = 2**41
"""Address space in bytes."""


def page(results: Results, concluded: Conclusions, definitions: Sequence[str]) -> str:
    """The report as one HTML page; equal results give equal text.

    Args:
        concluded: conclusions of these results.
        definitions: as "**Term**: definition."
    """
    cells = rows.over_seeds(rows.ordered_cells(results))
    plan = {setting: number for number, setting in enumerate(results.settings)}
    images = examples(results, cells, plan)
    parts = importlib.resources.files("reid_attack_bench.report.html") / "template"
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, finalize=_seen
    )
    template = environment.from_string((parts / "report.html.j2").read_text(encoding="utf-8"))
    data = _data(results, concluded, cells, plan) | {"examples": images}
    return template.render(
        **prose(results, concluded, cells, definitions, has_examples=bool(images["crafts"])),
        version=__version__,
        # our style and script contain no "</"; content of a run is escaped
        style=jinja2.filters.Markup((parts / "report.css").read_text(encoding="utf-8")),
        script=jinja2.filters.Markup((parts / "report.js").read_text(encoding="utf-8")),
        library=jinja2.filters.Markup(_library()),
        data=jinja2.filters.Markup(_json(data)),
    )


def _json(value: Any) -> str:
    text = json.dumps(_seen(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _seen(value: Any) -> Any:
    """`value` with all text in it `visible`; markup stays as it is."""
    if isinstance(value, Mapping):
        return {_seen(name): _seen(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_seen(each) for each in value]
    return visible(value) if isinstance(value, str) and not isinstance(value, jinja2.filters.Markup) else value


def _is_address_space_limited() -> bool:
    """Whether the limit on address space (ulimit -v) is below what the engine that makes the script reserves.

    It ends the process where it does not get it, and it was seen to at 64 GiB.
    """
    if resource is None:
        return False
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return limit != resource.RLIM_INFINITY and limit < _ENGINE


@functools.cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script; empty where it cannot be made."""
    if _is_address_space_limited():
        return ""
    bundle = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # required by its type stub only
    return str(bundle).replace("</script", "<\\/script")


def _data(
    results: Results, concluded: Conclusions, cells: list[CellRow], plan: Mapping[Setting, int]
) -> dict[str, Any]:
    clean = rows.ordered_clean(results)
    board = rows.rows(concluded.board)
    names = sorted({row.victim for row in clean} | {cell.source for cell in cells} | {cell.target for cell in cells})
    defences = {row.victim: row.defence for row in clean if row.defence}
    number = {name: index for index, name in enumerate(names)}
    places = {name: index for index, name in enumerate(labels.datasets(results))}
    columns = ["setting", "source", "target", "dataset", "access", "status", "seeds"]
    columns += catalogue.cell_columns()
    seeds = _seeds(results)
    first: dict[Setting, CellRow] = {}
    lines = []
    for cell in cells:
        first.setdefault(cell.setting, cell)
        line: list[Any] = [plan[cell.setting], number[cell.source], number[cell.target], places[cell.dataset]]
        line += [cell.access, cell.status, seeds.get(cell.place, [])]
        line += [_rounded(cell.value(name)) for name in columns[7:]]
        lines.append([*line, *_over_control(concluded, cell)])
    height, width = results.record.suite.image_size
    epsilons = rows.epsilons(plan)
    return {
        "headline": results.headline_epsilon,
        "epsilons": epsilons,
        "all_pixels": height * width,
        "settings": [_setting_entry(setting, first[setting]) for setting in plan],
        "victims": [{"name": name, "defence": defences.get(name, "")} for name in names],
        "datasets": [
            {
                "name": name,
                "queries": labels.query_count(results, name),
                "marks": ", ".join(labels.marks(results, name)),
            }
            for name in places
        ],
        "measures": _measures(),
        "columns": [*columns, *_OVER_CONTROL],
        "cells": lines,
        "controls": [
            _control_entry(budget, control, concluded.controls.names[control.attack], number, places)
            for budget, control in sorted(concluded.controls.best.items(), key=lambda item: str(item[0]))
        ],
        "clean": [
            {
                "victim": row.victim,
                "dataset": row.dataset,
                **{measure.name: _rounded(row.value(measure.name)) for measure in catalogue.clean_and_attacked()},
            }
            for row in clean
            if row.ok
        ],
        "board": [_board_row(row, epsilons) for row in board],
        "ramp": [to_hex(colour) for colour in matplotlib.colormaps[style.COLOUR_MAP].resampled(128)(range(128))],
        "colours": list(COLOURS),
        "charts": {"curve": curve(), "scatter": scatter()},
    }


_OVER_CONTROL = ("over_control_mAP", "over_control_mAP_low", "over_control_mAP_high")


def _over_control(concluded: Conclusions, cell: CellRow) -> list[float | None]:
    """Values of _OVER_CONTROL of a cell, None if it is not compared with a control."""
    found = concluded.controls.means.get(cell.place)
    return [None] * 3 if found is None else [_rounded(each) for each in (found.over, found.low, found.high)]


def _control_entry(
    budget: Budget, control: CellRow, name: str, victims: Mapping[str, int], places: Mapping[str, int]
) -> dict[str, Any]:
    """The best control of a target and a budget."""
    target, dataset, epsilon, pixels, perturbs = budget
    return {
        "target": victims[target],
        "dataset": places[dataset],
        "epsilon": epsilon,
        "pixels": pixels or 0,
        "perturbs": perturbs,
        "name": name,
        "values": {column: _rounded(control.value(column)) for column in catalogue.cell_columns()},
    }


def _measures() -> list[dict[str, Any]]:
    """Measures that the page can show for a cell; drops are listed after the ranking measures."""
    listed = [(measure, "", measure.group) for measure in catalogue.clean_and_attacked()]
    listed += [(measure, "drop_", "drop") for measure in catalogue.clean_and_attacked()]  # type: ignore[misc]
    listed += [(measure, "", measure.group) for measure in catalogue.of_group("evasion", "targeted")]
    listed += [(measure, "", measure.group) for measure in catalogue.of_group("visibility", "detection", "cost")]
    return [
        {
            "id": f"{prefix}{measure.name}",
            "title": f"Drop of {measure.label}" if prefix else measure.label,
            "digits": measure.digits,
            "percent": measure.unit == "%",
            "group": group,
        }
        for measure, prefix, group in listed
    ]


def _setting_entry(setting: Setting, cell: CellRow) -> dict[str, Any]:
    return {
        "attack": setting.attack,
        "epsilon": setting.epsilon,
        "pixels": setting.pixels,
        "perturbs": setting.perturbs,
        "budget": setting.budget,
        "budget_text": f"ε = {setting.epsilon}/255{setting.variant.removeprefix(setting.attack)}",
        "variant": setting.variant,
        "name": f"{setting.variant}, ε = {setting.epsilon}",
        "needs": ", ".join(cell.needs),
        "family": cell.family,
        "steps": cell.steps,
        "adaptive": cell.adaptive > 0,
        "impersonate": setting.impersonate,
        "control": is_control(cell),
    }


def _seeds(results: Results) -> dict[tuple[Setting, str, str, str], list[list[float]]]:
    """Seed, Rank-1 and mAP of each seed that succeeded, for each row of the page."""
    found: dict[tuple[Setting, str, str, str], list[list[float]]] = {}
    for cell in results.cells:
        if cell.ok:
            seed = [cell.seed, round(cell.value("rank1"), 2), round(cell.value("mAP"), 2)]
            found.setdefault(cell.place, []).append(seed)
    return {key: sorted(seeds) for key, seeds in found.items()}


def _board_row(row: Row, epsilons: Sequence[int]) -> dict[str, Any]:
    def spans(prefix: str) -> dict[str, list[float | None]]:
        found = {
            name: [_rounded(row[f"{prefix}_{name}{end}"]) for end in ("", "_low", "_high")] for name in labels.METRICS
        }
        return {name: span for name, span in found.items() if span[0] is not None}

    flags, ambers = rows.audit_flags(row)
    return {
        "place": None if rows.is_missing(row["rank"]) else int(row["rank"]),
        "victim": row["victim"],
        "defence": "" if rows.is_missing(row["defence"]) else str(row["defence"]),
        "dataset": row["dataset"],
        "shown": labels.with_marks(row),
        "queries": None if rows.is_missing(row["queries"]) else int(row["queries"]),
        "flags": flags,
        "ambers": ambers,
        "clean": spans("clean"),
        "worst": {
            str(epsilon): {**spans(f"worst_e{epsilon}"), "missing": int(row[f"worst_e{epsilon}_missing"])}
            for epsilon in epsilons
        },
    }


def _rounded(value: Any) -> float | None:
    number = rows.number(value)
    return None if math.isnan(number) else round(number, 4)
