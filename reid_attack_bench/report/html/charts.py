"""Vega-Lite charts of report.html; the script fills in data, titles and colours."""

from __future__ import annotations

from typing import Any

import altair as alt

from reid_attack_bench.report.plots import style

COLOURS = style.LINE_COLOURS[:-1]  # black is invisible on a dark page


def curve() -> dict[str, Any]:
    x = alt.X("x:Q", title="{x}", scale=alt.Scale(zero=True, nice=True))
    y = alt.Y("y:Q", title="{y}", scale=alt.Scale(domain=[0, 100]))
    tooltip = [
        alt.Tooltip("attack:N", title="attack"),
        alt.Tooltip("source:N", title="source"),
        alt.Tooltip("y:Q", title="accuracy (%)", format=".1f"),
        alt.Tooltip("low:Q", title="from", format=".1f"),
        alt.Tooltip("high:Q", title="to", format=".1f"),
    ]
    points = alt.Chart(alt.NamedData("points"))
    colour, plain = (
        alt.Color("series:N", legend=legend, scale=alt.Scale(range=list(COLOURS))) for legend in (_legend(), None)
    )
    shape = alt.Shape("series:N", legend=_legend())
    bars = points.mark_rule(opacity=0.6).encode(x=x, y=alt.Y("low:Q", title="{y}"), y2="high:Q", color=plain)
    lines = points.mark_line().encode(x=x, y=y, color=plain, strokeDash=alt.StrokeDash("series:N", legend=None))
    marks = points.mark_point(filled=True, size=70, opacity=1).encode(
        x=x, y=y, color=colour, shape=shape, tooltip=tooltip
    )
    clean = alt.Chart(alt.NamedData("clean")).mark_rule(strokeDash=[6, 4], color="#888888").encode(y="y:Q")
    # independent scales, so that one legend shows colour and shape of the points
    return _chart(alt.layer(clean, bars, lines, marks).resolve_scale(color="independent", shape="independent"))


def scatter() -> dict[str, Any]:
    chart = alt.Chart(alt.NamedData("points")).mark_point(filled=True, size=90, opacity=0.9)
    encoded = chart.encode(
        x=alt.X("x:Q", title="{x}", scale=alt.Scale(zero=False)),
        y=alt.Y("y:Q", title="{y}", scale=alt.Scale(domain=[0, 100])),
        color=alt.Color("series:N", legend=_legend(), scale=alt.Scale(range=list(COLOURS))),
        shape=alt.Shape("series:N", legend=_legend()),
        tooltip=[
            alt.Tooltip("attack:N", title="attack"),
            alt.Tooltip("source:N", title="source"),
            alt.Tooltip("x:Q", title="SSIM", format=".3f"),
            alt.Tooltip("y:Q", title="accuracy (%)", format=".1f"),
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
