"""A report of labels, names, notes and messages that others chose: every file of it stays what it is."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from reid_attack_bench.report.results import Results
from reid_attack_bench.report.write import write_report
from reid_attack_bench.text import no_label
from tests.report.test_report import make_results, with_suite

TEXTS = {
    "markdown": "a | b `` ``` \n```\n# no chapter <script>alert(1)</script> **",
    "page": "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp; {{ 7 * 7 }} {% raw %}",
    "terminal": "\x1b[2J\x07\r\u202etxt\u2028 caf\udce9 \x00",
    "formula": "=cmd|' /C calc'!A0 [/data/model.pth] [bold]$\\frac{x$ _a_ ^ ~ \\input{/etc/passwd} % { } & #",
    "long": "名" * 48,
}
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def hostile(text: str) -> Results:
    """A small run in which everything that others name is `text`."""
    results = make_results(("osnet_x0_25",), ("plaza",), ("pgd",), (8,), images=1, missing=0.0)
    results = with_suite(results, name=text, description=text)
    label = "mine@plaza" if no_label(text) else f"{text} @plaza"  # a label that evaluate takes
    sides = {"source": label, "target": label}
    cells = [dataclasses.replace(each, **sides) for each in results.cells]
    return dataclasses.replace(
        results,
        cells=[*cells, *(dataclasses.replace(each, seed=8, status=f"failed: {text}", values={}) for each in cells)],
        clean=[dataclasses.replace(each, victim=label, defence=text, citation=text) for each in results.clean],
        sheets=[dataclasses.replace(each, source=label) for each in results.sheets],
        notes=[text],
        record=dataclasses.replace(results.record, command=f"reid-attack-bench run {text}"),
    )  # fmt: skip


class Tags(HTMLParser):
    """Names of the tags of a page, and its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.names.append(tag)


@pytest.mark.e2e
@pytest.mark.parametrize("kind", TEXTS)
def test_every_file_of_a_report_stays_what_it_is(tmp_path: Path, kind: str) -> None:
    text = TEXTS[kind]
    written = write_report(hostile(text), tmp_path)
    assert all(tmp_path in path.parents and len(path.name.encode()) < 200 for path in written)
    pages = {
        path: path.read_text(encoding="utf-8") for path in written if path.suffix in (".md", ".html", ".csv", ".tex")
    }
    for path, page in pages.items():
        library = page.partition("<script>")[2] if path.suffix == ".html" else ""
        assert not CONTROL.search(page.replace(library, "")), path
    page = pages[tmp_path / "report.html"]
    tags = Tags()
    tags.feed(page)
    assert tags.names.count("script") == 3
    assert "img" not in tags.names
    assert json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])
    for path, content in pages.items():
        if path.suffix == ".csv":
            rows = list(csv.reader(content.splitlines(keepends=True), strict=True))
            assert len({len(row) for row in rows}) == 1
            assert not any(cell.startswith(("=", "@", "\t", "\r")) for row in rows for cell in row)
        elif path.suffix == ".tex":
            assert content.isascii()
            assert not any("\\input" in line for line in content.splitlines() if not line.startswith("% "))
        elif path.suffix == ".md":
            outside = re.sub(r"(?ms)^(`{3,})sh$.*?^\1$", "", content)
            assert "\n```" not in outside
            assert "<script" not in outside
            assert "\n# no chapter" not in outside
