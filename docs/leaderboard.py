"""The leaderboard of the documentation: every row of the current protocols in results/, as HTML tables.

A row is one of any leaderboard.csv, of a published run or an accepted submission, whose column `protocol` names the
newest `reid-standard-N` or its small form. The tables are complete without a script; leaderboard.js sorts and filters
them.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from reid_attack_bench.report.record import reading
from reid_attack_bench.report.rows import audit_flags
from reid_attack_bench.suites import protocols

HEADLINE = 8
"""Epsilon (1/255) whose worst-case mAP ranks the victims of every run; the smallest of a protocol without it."""

END = "<!-- end of the leaderboard -->"
METRICS = (("rank1", "Rank-1"), ("mAP", "mAP"))
SUBMISSIONS, CARD, CARD_PAGE = "submissions", "card.yaml", "report.md#card"
_NAME = re.compile(r"reid-standard-(\d+)(-small)?")

Span = tuple[float, float, float]
"""A percentage with the ends of its interval; NaN for an end that is missing."""


@dataclass(frozen=True)
class Row:
    """A victim on a data set, from one run.

    Attributes:
        withdrawn: whether the data set was withdrawn by its authors.
        size: of the images, "height×width".
        data: key of rendered data, whose settings are not in their name; empty for photographs.
        clean: metric → value.
        worst: (epsilon, metric) → value under the attacks of the protocol.
        bounds: epsilons at which cells are missing, so that the worst case is an upper bound.
        folder: of the run, relative to the root of the documentation, such as "results/quick".
        page, card: in it; card is empty for a row that is no submission.
        red, amber: flags of the audit.
        place: within protocol and data set, 0 before `ranked`.
    """

    protocol: str
    victim: str
    defence: str
    dataset: str
    synthetic: bool
    withdrawn: bool
    queries: str
    size: str
    data: str
    clean: Mapping[str, Span]
    worst: Mapping[tuple[int, str], Span]
    bounds: Sequence[int]
    folder: str
    page: str
    card: str
    citation: str
    command: str
    red: Sequence[str]
    amber: Sequence[str]
    place: int = 0

    @property
    def group(self) -> tuple[str, ...]:
        """Rows with an equal group are ranked together: protocol and data; photographs come before rendered people."""
        return self.protocol, str(self.synthetic), self.dataset, self.queries, self.data


def current() -> list[str]:
    """Names of the newest protocol and of its small form."""
    known = [found for name in protocols.shipped() if (found := _NAME.fullmatch(name))]
    newest = max(int(found[1]) for found in known)
    return sorted(found[0] for found in known if int(found[1]) == newest)


def rows(results: Path) -> list[Row]:
    """Every row of the current protocols in `results`, ranked within protocol and data set."""
    boards = sorted([*results.glob("*/leaderboard.csv"), *results.glob(f"{SUBMISSIONS}/*/leaderboard.csv")])
    return ranked(row for board in boards for row in _rows_of(board.parent, results))


def ranked(found: Iterable[Row]) -> list[Row]:
    """Rows by protocol and data set, then by worst-case mAP; those with a red flag come last."""
    ordered = sorted(found, key=lambda row: (*row.group, *_order(row)))
    return [
        replace(row, place=place)
        for _, group in groupby(ordered, key=lambda row: row.group)
        for place, row in enumerate(group, start=1)
    ]


def _order(row: Row) -> tuple[Any, ...]:
    epsilons = sorted({epsilon for epsilon, _ in row.worst})
    headline = HEADLINE if HEADLINE in epsilons else epsilons[0]
    values = (row.worst[headline, "mAP"][0], row.clean["mAP"][0])
    descending = (math.inf if math.isnan(value) else -value for value in values)
    return bool(row.red), *descending, row.victim, row.folder


def _rows_of(folder: Path, results: Path) -> list[Row]:
    with reading(folder):
        return list(_each_of(folder, results))


def _each_of(folder: Path, results: Path) -> Iterator[Row]:
    table = [row for row in _read(folder / "leaderboard.csv") if row.get("protocol") in current()]
    if not table:
        return
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    keys = {cell["dataset"]: cell["data_key"] for cell in manifest["cells"]}
    citations = {row["victim"]: row["citation"] for row in _read(folder / "clean.csv")}
    height, width = manifest["suite"]["image_size"]
    for row in table:
        epsilons = sorted(int(found[1]) for name in row if (found := re.fullmatch(r"protocol_e(\d+)_mAP", name)))
        if not epsilons:
            raise ValueError("leaderboard.csv has no column of its protocol")
        synthetic = row["synthetic"] == "true"
        red, amber = audit_flags(row)
        yield Row(
            protocol=row["protocol"],
            victim=row["victim"],
            defence=row["defence"],
            dataset=row["dataset"],
            synthetic=synthetic,
            withdrawn=row.get("withdrawn") == "true",  # a column since November 2026
            queries=row["queries"],
            size=f"{height}×{width}",
            data=keys[row["dataset"]] if synthetic else "",
            clean={name: _span(row, f"clean_{name}") for name, _ in METRICS},
            worst={(e, name): _span(row, f"protocol_e{e}_{name}") for e in epsilons for name, _ in METRICS},
            bounds=[e for e in epsilons if row[f"protocol_e{e}_missing"] != "0"],
            folder=f"results/{folder.relative_to(results).as_posix()}",
            page="report.html" if (folder / "report.html").is_file() else "report.md",
            card=CARD_PAGE if (folder / CARD).is_file() else "",
            citation=citations.get(row["victim"], ""),
            command=str(manifest["command"]),
            red=red,
            amber=amber,
        )


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _span(row: Mapping[str, str], name: str) -> Span:
    value, low, high = (float(row[f"{name}{end}"] or "nan") for end in ("", "_low", "_high"))
    return value, low, high


# HTML


def tables(found: Sequence[Row], url: Callable[[str], str]) -> str:
    """One table for each current protocol, with a group of rows for each data set.

    Args:
        found: as `ranked` returns them.
        url: address of a file of the documentation, such as "results/quick/report.md".
    """
    parts = []
    for name in current():
        mine = [row for row in found if row.protocol == name]
        words = "Small form, an upper bound" if name.endswith("-small") else "Full protocol"
        words += "" if mine else ": no run is published yet"
        parts.append(f'<p class="lb-title" id="{name}"><strong><code>{name}</code></strong> {words}</p>')
        parts += [_table(name, mine, url)] if mine else []
    return '<div class="lb" id="rows">\n' + "\n".join(parts) + f"\n</div>\n\n{END}\n"


def _table(name: str, mine: Sequence[Row], url: Callable[[str], str]) -> str:
    epsilons = sorted({epsilon for row in mine for epsilon, _ in row.worst})
    heads = [_head("#", number=True), _head("Victim"), _head("Defence")]
    heads += [_head(f"Clean {title}", number=True) for _, title in METRICS]
    heads += [_head(f"Worst {title}", number=True, epsilon=e) for e in epsilons for _, title in METRICS]
    heads += [_head("Audit"), _head("Run"), _head("Card"), _head("Command")]
    groups = [list(group) for _, group in groupby(mine, key=lambda row: row.group)]
    names = [group[0].dataset for group in groups]
    bodies = [_body(group, epsilons, len(heads), url, names.count(group[0].dataset) > 1) for group in groups]
    return (
        f'<div class="lb-scroll" role="region" tabindex="0" aria-labelledby="{name}">\n'
        f'<table class="lb-table" data-protocol="{name}" aria-labelledby="{name}">\n'
        f"<thead><tr>{''.join(heads)}</tr></thead>\n" + "\n".join(bodies) + "\n</table>\n</div>"
    )


def _head(text: str, *, number: bool = False, epsilon: int | None = None) -> str:
    parts = [*text.split(" "), *([] if epsilon is None else [f"ε = {epsilon}"])]
    at = "" if epsilon is None else f' data-epsilon="{epsilon}"'
    shown = " ".join(f"<span>{escape(part)}</span>" for part in parts)  # a line may break between them
    return f'<th scope="col"{" class=n" if number else ""}{at}>{shown}</th>'


def _body(
    group: Sequence[Row], epsilons: Sequence[int], columns: int, url: Callable[[str], str], ambiguous: bool
) -> str:
    first = group[0]
    words = [f"{first.queries} queries", f"{first.size} pixels"]
    words += [f"data {first.data[:6]}"] if ambiguous and first.data else []
    badges = '<span class="lb-badge">synthetic</span> ' if first.synthetic else ""
    if first.withdrawn:
        badges += f'<a class="lb-badge" href="{url("data.md")}#withdrawn-data-sets">withdrawn</a> '
    lines = [
        f'<tbody data-dataset="{escape(first.dataset)}">',
        f'<tr class="lb-place"><th colspan="{columns}" scope="rowgroup"><span>{escape(first.dataset)} {badges}'
        f"<small>{escape(', '.join(words))}</small></span></th></tr>",
    ]
    below = False
    for row in group:
        if row.red and not below:
            below = True
            why = f'<a href="{url("audit.md")}#the-audit">see the audit</a>'
            lines.append(f'<tr class="lb-line"><td colspan="{columns}"><span>Unverified: {why}</span></td></tr>')
        lines.append(_line(row, epsilons, url))
    return "\n".join([*lines, "</tbody>"])


def _line(row: Row, epsilons: Sequence[int], url: Callable[[str], str]) -> str:
    cells = [f'<td class="n" data-value="{row.place}">{row.place}</td>']
    victim = re.sub(r"([@_+])", r"\1<wbr>", escape(row.victim))  # a long name may break there
    cells += [f'<th scope="row">{victim}</th>', f"<td>{escape(row.defence)}</td>"]
    cells += [_number(row.clean[name]) for name, _ in METRICS]
    for epsilon in epsilons:
        bound = "≤ " if epsilon in row.bounds else ""
        cells += [_number(row.worst.get((epsilon, name)), bound, epsilon) for name, _ in METRICS]
    flags = [f'<span class="lb-red">⚑ {escape(", ".join(row.red))}</span>'] if row.red else []
    flags += [f'<span class="lb-amber">amber: {escape(", ".join(row.amber))}</span>'] if row.amber else []
    page, _, anchor = row.card.partition("#")
    card = f'<a href="{url(f"{row.folder}/{page}")}#{anchor}">card</a>' if row.card else _citation(row.citation)
    run = row.folder.removeprefix("results/").removeprefix(f"{SUBMISSIONS}/")
    cells += [f"<td>{'; '.join(flags)}</td>", f'<td><a href="{url(f"{row.folder}/{row.page}")}">{escape(run)}</a></td>']
    cells += [f"<td>{card}</td>", f"<td><code>{escape(row.command)}</code></td>"]
    return f"<tr>{''.join(cells)}</tr>"


def _number(span: Span | None, bound: str = "", epsilon: int | None = None) -> str:
    at = "" if epsilon is None else f' data-epsilon="{epsilon}"'
    if span is None or math.isnan(span[0]):
        return f'<td class="n"{at}>–</td>'
    value, low, high = span
    interval = "" if math.isnan(low) else f" <small>[{low:.1f}, {high:.1f}]</small>"
    return f'<td class="n"{at} data-value="{value:g}">{bound}{value:.1f}{interval}</td>'


def _citation(text: str) -> str:
    """A citation, as a link where it is an arXiv number, a DOI or an address."""
    arxiv = re.search(r"arXiv[ :]*(\d{4}\.\d{4,5})", text, re.IGNORECASE)
    doi = re.search(r"10\.\d{4,9}/\S+", text)
    address = text if re.match(r"https?://", text) else ""
    address = address or (f"https://arxiv.org/abs/{arxiv[1]}" if arxiv else f"https://doi.org/{doi[0]}" if doi else "")
    return f'<a href="{escape(address)}">{escape(text)}</a>' if address else escape(text)
