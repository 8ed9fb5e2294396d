"""report.html: the whole report in one file that asks for nothing from any network.

The page is a Jinja template with its style and script beside it (folder `page`); the charts are Vega-Lite, specified
with Altair and drawn by the library's own bundle, which is embedded. Tables, matrix and gallery are the script's, from
one block of JSON.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import jinja2
import matplotlib
import vl_convert
from matplotlib.colors import to_hex

from reid_attack_bench import __version__
from reid_attack_bench.report import audit, defences, findings, plots, tables
from reid_attack_bench.report.examples import examples
from reid_attack_bench.report.results import NOT_APPLICABLE, Results
from reid_attack_bench.report.tables import Row, Setting


@dataclass(frozen=True)
class Measure:
    """A figure of a cell. id: column of matrix.csv; title: in words; digits: after the point; percent: 0 to 100."""

    id: str
    title: str
    digits: int = 1
    percent: bool = True


MEASURES = (
    Measure("mAP", "mAP"),
    Measure("rank1", "Rank-1"),
    Measure("rank5", "Rank-5"),
    Measure("rank10", "Rank-10"),
    Measure("rank20", "Rank-20"),
    Measure("mINP", "mINP"),
    Measure("drop_mAP", "Drop of mAP"),
    Measure("drop_rank1", "Drop of Rank-1"),
    Measure("drop_rank5", "Drop of Rank-5"),
    Measure("drop_rank10", "Drop of Rank-10"),
    Measure("drop_rank20", "Drop of Rank-20"),
    Measure("drop_mINP", "Drop of mINP"),
    Measure("ssim", "SSIM", 3, False),
    Measure("ms_ssim", "MS-SSIM", 3, False),
    Measure("lpips", "LPIPS", 3, False),
    Measure("linf", "L∞ (1/255)", 2, False),
    Measure("l2", "L2", 2, False),
    Measure("pixels_changed", "Changed pixels", 0, False),
    Measure("grid", "Grid energy", 3, False),
    Measure("rejected", "Refused queries"),
)
_RANKS = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")
_ENDS = tuple(f"{name}_{end}" for name in ("rank1", "mAP") for end in ("low", "high"))
_COLOURS = plots.LINE_COLOURS[:-1]  # black is lost on a dark page


def page(results: Results, concluded: Any, definitions: Sequence[str]) -> str:
    """The report as one HTML file; the same results give the same text.

    Args:
        concluded: write.Conclusions of these results.
        definitions: of terms, "**Term**: what it means."
    """
    cells = tables.over_seeds(tables.rows(tables.matrix(results)))
    plan = {setting: number for number, setting in enumerate(tables.settings(results))}
    pictures = examples(results, cells, plan)
    parts = importlib.resources.files("reid_attack_bench.report") / "page"
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    template = environment.from_string((parts / "report.html.j2").read_text(encoding="utf-8"))
    data = _data(results, concluded, cells, plan) | {"examples": pictures}
    return template.render(
        **_prose(results, concluded, cells, definitions, has_examples=bool(pictures["crafts"])),
        version=__version__,
        # a style or script of ours holds no "</"; what comes from a run is escaped
        style=jinja2.filters.Markup((parts / "report.css").read_text(encoding="utf-8")),
        script=jinja2.filters.Markup((parts / "report.js").read_text(encoding="utf-8")),
        library=jinja2.filters.Markup(_library()),
        data=jinja2.filters.Markup(_json(data)),
    )


def _json(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@functools.cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script."""
    bundle = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # which its stub alone asks for
    return str(bundle).replace("</script", "<\\/script")


# data of the script


def _data(results: Results, concluded: Any, cells: list[Row], plan: Mapping[Setting, int]) -> dict[str, Any]:
    clean = tables.rows(tables.clean(results))
    board = tables.rows(concluded.board)
    names = sorted(
        {str(row["victim"]) for row in clean} | {str(cell[s]) for cell in cells for s in ("source", "target")}
    )
    defences = {row["victim"]: row["defence"] for row in clean if not tables.is_missing(row["defence"])}
    number = {name: index for index, name in enumerate(names)}
    places = {name: index for index, name in enumerate(plots.datasets(results))}
    columns = ["setting", "source", "target", "dataset", "access", "status", "seeds"]
    columns += [measure.id for measure in MEASURES] + [f"clean_{name}" for name in _RANKS] + list(_ENDS)
    seeds = _seeds(results)
    first: dict[Setting, Row] = {}
    lines = []
    for cell in cells:
        setting, target = tables.setting_of(cell), number[cell["target"]]
        first.setdefault(setting, cell)
        key = (setting, cell["source"], cell["target"], cell["dataset"])
        line = [plan[setting], number[cell["source"]], target, places[cell["dataset"]], str(cell["access"])]
        lines.append([*line, str(cell["status"]), seeds.get(key, []), *(_rounded(cell[name]) for name in columns[7:])])
    height, width = results.manifest.get("suite", {}).get("image_size") or (0, 0)
    epsilons = tables.epsilons(plan)
    return {
        "headline": results.headline_epsilon,
        "epsilons": epsilons,
        "all_pixels": height * width,
        "settings": [_setting(setting, first[setting]) for setting in plan],
        "victims": [{"name": name, "defence": str(defences.get(name, ""))} for name in names],
        "datasets": [
            {
                "name": name,
                "queries": plots.query_count(results, name),
                "synthetic": plots.is_synthetic(results, name),
            }
            for name in places
        ],
        "measures": [vars(measure) for measure in MEASURES],
        "columns": columns,
        "cells": lines,
        "clean": [
            {"victim": row["victim"], "dataset": row["dataset"], **{name: _rounded(row[name]) for name in _RANKS}}
            for row in clean
            if row["status"] == "ok"
        ],
        "board": [_board_row(row, epsilons) for row in board],
        "ramp": [to_hex(colour) for colour in matplotlib.colormaps[plots.COLOUR_MAP].resampled(128)(range(128))],
        "colours": list(_COLOURS),
        "charts": {"curve": _curve(), "scatter": _scatter()},
    }


def _setting(setting: Setting, cell: Row) -> dict[str, Any]:
    steps, adaptive = tables.number(cell["steps"]), tables.number(cell["adaptive"])
    return {
        "attack": setting.attack,
        "epsilon": setting.epsilon,
        "pixels": setting.pixels,
        "perturbs": setting.perturbs,
        "budget": setting.budget,
        "budget_text": f"ε = {setting.epsilon}/255{setting.variant.removeprefix(setting.attack)}",
        "variant": setting.variant,
        "name": f"{setting.variant}, ε = {setting.epsilon}",
        "needs": "" if tables.is_missing(cell["needs"]) else str(cell["needs"]).replace("+", ", "),
        "family": "" if tables.is_missing(cell["family"]) else str(cell["family"]),
        "steps": 0 if math.isnan(steps) else int(steps),
        "adaptive": adaptive > 0,
    }


def _seeds(results: Results) -> dict[tuple[Any, ...], list[list[float]]]:
    """Seed, Rank-1 and mAP of each seed that succeeded, for each row of the page."""
    found: dict[tuple[Any, ...], list[list[float]]] = {}
    for cell in tables.rows(results.cells):
        if cell["status"] == "ok":
            key = (tables.setting_of(cell), cell["source"], cell["target"], cell["dataset"])
            seed = [int(tables.number(cell["seed"])), round(float(cell["rank1"]), 2), round(float(cell["mAP"]), 2)]
            found.setdefault(key, []).append(seed)
    return {key: sorted(seeds) for key, seeds in found.items()}


def _board_row(row: Row, epsilons: Sequence[int]) -> dict[str, Any]:
    def spans(prefix: str) -> dict[str, list[float | None]]:
        found = {
            name: [_rounded(row[f"{prefix}_{name}{end}"]) for end in ("", "_low", "_high")] for name in plots.METRICS
        }
        return {name: span for name, span in found.items() if span[0] is not None}

    flags = [] if tables.is_missing(row["audit"]) else str(row["audit"]).removeprefix("unverified: ").split(", ")
    return {
        "place": None if tables.is_missing(row["rank"]) else int(row["rank"]),
        "victim": row["victim"],
        "defence": "" if tables.is_missing(row["defence"]) else str(row["defence"]),
        "dataset": row["dataset"],
        "synthetic": bool(row["synthetic"]),
        "queries": None if tables.is_missing(row["queries"]) else int(row["queries"]),
        "flags": flags,
        "clean": spans("clean"),
        "worst": {
            str(epsilon): {**spans(f"worst_e{epsilon}"), "missing": int(row[f"worst_e{epsilon}_missing"])}
            for epsilon in epsilons
        },
    }


def _rounded(value: Any) -> float | None:
    figure = tables.number(value)
    return None if math.isnan(figure) else round(figure, 4)


# charts; the script gives them their data, titles and colours


def _curve() -> dict[str, Any]:
    x = alt.X("x:Q", title="{x}", scale=alt.Scale(zero=True, nice=True))
    y = alt.Y("y:Q", title="{y}", scale=alt.Scale(domain=[0, 100]))
    tooltip = [
        alt.Tooltip("attack:N", title="attack"),
        alt.Tooltip("source:N", title="source"),
        alt.Tooltip("y:Q", title="left (%)", format=".1f"),
        alt.Tooltip("low:Q", title="from", format=".1f"),
        alt.Tooltip("high:Q", title="to", format=".1f"),
    ]
    points = alt.Chart(alt.NamedData("points"))
    colour, plain = (
        alt.Color("series:N", legend=legend, scale=alt.Scale(range=list(_COLOURS))) for legend in (_legend(), None)
    )
    shape = alt.Shape("series:N", legend=_legend())
    bars = points.mark_rule(opacity=0.6).encode(x=x, y=alt.Y("low:Q", title="{y}"), y2="high:Q", color=plain)
    lines = points.mark_line().encode(x=x, y=y, color=plain, strokeDash=alt.StrokeDash("series:N", legend=None))
    marks = points.mark_point(filled=True, size=70, opacity=1).encode(
        x=x, y=y, color=colour, shape=shape, tooltip=tooltip
    )
    clean = alt.Chart(alt.NamedData("clean")).mark_rule(strokeDash=[6, 4], color="#888888").encode(y="y:Q")
    # scales of their own, so that the legend of the points shows colour and shape in one
    return _chart(alt.layer(clean, bars, lines, marks).resolve_scale(color="independent", shape="independent"))


def _scatter() -> dict[str, Any]:
    chart = alt.Chart(alt.NamedData("points")).mark_point(filled=True, size=90, opacity=0.9)
    encoded = chart.encode(
        x=alt.X("x:Q", title="{x}", scale=alt.Scale(zero=False)),
        y=alt.Y("y:Q", title="{y}", scale=alt.Scale(domain=[0, 100])),
        color=alt.Color("series:N", legend=_legend(), scale=alt.Scale(range=list(_COLOURS))),
        shape=alt.Shape("series:N", legend=_legend()),
        tooltip=[
            alt.Tooltip("attack:N", title="attack"),
            alt.Tooltip("source:N", title="source"),
            alt.Tooltip("x:Q", title="SSIM", format=".3f"),
            alt.Tooltip("y:Q", title="left (%)", format=".1f"),
        ],
    )
    return _chart(encoded)


def _legend() -> alt.Legend:
    return alt.Legend(title=None, orient="bottom", columns=2, labelLimit=260, symbolOpacity=1)


def _chart(chart: Any) -> dict[str, Any]:
    fitted = chart.properties(
        width="container", height=280, autosize=alt.AutoSizeParams(type="fit-x", contains="padding")
    )
    return dict(fitted.to_dict())


# what stands in words


def _prose(
    results: Results, concluded: Any, cells: Sequence[Row], definitions: Sequence[str], *, has_examples: bool
) -> dict[str, Any]:
    reasons = Counter(
        str(status)
        for status in results.cells["status"]
        if status != "ok" and not str(status).startswith(NOT_APPLICABLE)
    )
    red = [flag for flag in concluded.flags if flag.severity == "red"]
    notes = audit.notes(concluded.flags)
    gains = [defences.in_words(row) for row in tables.rows(concluded.gains)]
    judged = [findings.in_words(each) for each in concluded.judged]
    suite = results.manifest.get("suite", {})
    command = results.manifest.get("command") or ""
    sections = [("leaderboard", "Leaderboard")]
    sections += [("audit", "Audit")] if red or notes else []
    sections += [("defences", "Defences")] if gains else []
    sections += [("findings", "Findings")] if judged else []
    sections += [("matrix", "Matrix"), ("curves", "Curves"), ("cells", "Every cell"), ("run", "What was run")]
    sections += [("definitions", "Definitions")]
    if has_examples:
        sections.insert(-3, ("gallery", "Gallery"))
    return {
        "suite": results.suite,
        "sections": sections,
        "has_examples": has_examples,
        "synthetic": plots.is_synthetic(results),
        "summary": _summary(results, cells),
        "missing": sorted(reasons.items(), key=lambda item: (-item[1], item[0])),
        "missing_count": sum(reasons.values()),
        "cell_count": len(results.cells),
        "flags": red,
        "audit_notes": notes,
        "gains": gains,
        "gain_heads": defences.WORDS,
        "judged": judged,
        "judged_heads": findings.WORDS,
        "headline": results.headline_epsilon,
        "notes": results.notes,
        "description": " ".join(str(suite.get("description", "")).split()),
        "facts": _facts(results.manifest),
        "times": _times(results.manifest),
        "command": command if isinstance(command, str) else " ".join(map(str, command)),
        "seed": results.seed,
        "definitions": [tuple(text.replace("**", "").split(": ", 1)) for text in definitions],
    }


def _summary(results: Results, cells: Sequence[Row]) -> str:
    counts = {name: len({str(cell[name]) for cell in cells}) for name in ("attack", "source", "target")}
    counted = ", ".join(f"{count} {_plural(name, count)}" for name, count in counts.items())
    data = "; ".join(plots.describe(results, name) for name in plots.datasets(results))
    return f"{counted}, {len(results.cells):,} cells. {data}. Seed {results.seed}."


def _plural(word: str, count: int) -> str:
    return word if count == 1 else word + "s"


def _facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    machine = manifest.get("machine", {})
    facts = [
        ("Machine", f"{machine['gpu'] or 'no GPU'}, {machine['cores']} cores, {machine['system']}")
        if machine
        else None,
        ("Device", str(manifest["device"])) if "device" in manifest else None,
        ("Versions", ", ".join(f"{name} {version}" for name, version in manifest.get("versions", {}).items())),
        ("Bench", str(manifest.get("bench", ""))),
    ]
    return [fact for fact in facts if fact is not None and fact[1]]


def _times(manifest: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    """Kind of step, how many, seconds in all."""
    counts: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    for step in manifest.get("steps", []):
        counts[step["kind"]] += 1
        seconds[step["kind"]] = seconds.get(step["kind"], 0.0) + (step["seconds"] or 0.0)
    return [(kind, counts[kind], f"{seconds[kind]:,.1f}") for kind in counts]
