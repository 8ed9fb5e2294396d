"""Text of others is never markup, never a control sequence, never a formula, and never ends what it stands in."""

from __future__ import annotations

import ast
import csv
import io
import re
import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from reid_attack_bench.cli.options import bar
from reid_attack_bench.jobs.progress import RichListener
from reid_attack_bench.report.labels import markdown_text
from reid_attack_bench.report.paper.latex import latex_text
from reid_attack_bench.report.rows import csv_text
from reid_attack_bench.steps.step import Step
from reid_attack_bench.text import (
    PlainConsole,
    code_span,
    csv_cell,
    fenced,
    file_name,
    no_file_name,
    one_line,
    say,
    visible,
)

ANY = st.text(st.characters(exclude_categories=()), max_size=40)  # lone surrogates too
HOSTILE = (
    "cannot read [/data/model.pth]", "[bold]x[/bold]", "[/]", "a\\", "\\[x]", "[link=file:///etc]x[/link]", ":smile:",
    "\x1b[2J\x1b]0;title\x07", "a\rb", "\x9b31m", "\u202etxt.exe", "\u2028", "caf\udce9.jpg", "a\0b", "\x7f",
)  # fmt: skip
ROOT = Path(__file__).parents[1]
TEXT = ROOT / "reid_attack_bench" / "text.py"
PRINTED = ("json.dumps(", "schema_text(", "(_BASH_WORDS", "publish(")
ESCAPES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def hostile(test: Any) -> Any:
    for text in HOSTILE:
        test = example(text=text)(test)
    return given(text=ANY)(test)


def of_width(width: int = 500, **settings: Any) -> tuple[PlainConsole, io.StringIO]:
    out = io.StringIO()
    return PlainConsole(file=out, width=width, **settings), out


@hostile
def test_visible_text_has_no_control_and_keeps_the_rest(text):
    shown = visible(text)
    assert not ESCAPES.search(shown)
    shown.encode()  # no lone surrogate
    assert visible(shown) == shown
    kept = "".join(c for c in text if unicodedata.category(c)[0] != "C" and c not in "\u2028\u2029")
    assert all(character in shown for character in kept)
    assert "\n" not in one_line(text)


def test_escapes_are_those_of_python():
    assert visible("\x1b[2J\a\u202ea\udce9") == r"\x1b[2J\x07\u202ea\xe9"
    assert visible("ε → 7\tü\n한국어 👩\u200d👩\u200d👧") == "ε → 7\tü\n한국어 👩\u200d👩\u200d👧"
    assert visible("a\r\nb") == "a\nb"


@hostile
def test_a_console_prints_it_as_it_is_in_lines_tables_titles_and_bars(text):
    console, out = of_width()
    table = Table("head", text, title=text, caption=text)
    table.add_row(text, "cell")
    console.print(text)
    console.print(table)
    assert not ESCAPES.search(out.getvalue())
    lines = [line.strip() for line in visible(text).expandtabs(8).split("\n")]
    first = next((line for line in lines if line), "")
    assert " ".join(first.split()) in " ".join(out.getvalue().split())


@hostile
@pytest.mark.parametrize("make", [PlainConsole, Console])
def test_progress_of_a_run_takes_nothing_for_markup(text, make):
    out = io.StringIO()
    listener = RichListener(make(file=out, width=500, color_system=None))
    step = Step("craft", 1, text)
    listener.begin([step], 1)
    listener.start(step)
    listener.progress(step, 1, 2, text)
    listener.finish(step, 60.0)
    listener.fail(step, text)
    listener.note(text)
    listener.close()
    shown = " ".join(out.getvalue().split())
    assert f"failed {one_line(f'craft {text}')}".strip() in shown
    assert not ESCAPES.search(shown)


def test_bars_of_commands_take_nothing_for_markup(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with bar("get [/x]\x1b[2J") as progress:
        progress(1, 2, "")
    assert r"get [/x]\x1b[2J" in capsys.readouterr().err


def test_nothing_prints_past_these_functions():
    files = [path for folder in ("reid_attack_bench", "results") for path in (ROOT / folder).rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (isinstance(node, ast.ImportFrom) and node.module == "rich.markup")
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not _is_plain(node) and path != TEXT)
    ]
    assert found == []


def _is_plain(call: ast.Call) -> bool:
    """Whether a call prints nothing of others: no print or Console, JSON, or text without a value in it."""
    if call.func.id == "print":
        return all(isinstance(each, ast.Constant) or ast.unparse(each).startswith(PRINTED) for each in call.args)
    return call.func.id != "Console"


@hostile
def test_printing_fails_for_no_encoding(text):
    for encoding in ("ascii", "gbk", "latin-1", "utf-8"):
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding=encoding)
        say(text, stream)
        PlainConsole(file=stream, width=80).print(text, "ε → ≤")
        stream.flush()
        raw.getvalue().decode(encoding)


@hostile
@example(text="=cmd|' /C calc'!A0")
@example(text=" =1+1")
@example(text="\t=1")
@example(text="-2+3+cmd")
@example(text="@SUM(1)")
def test_no_cell_begins_a_formula_and_every_cell_is_one_cell(text):
    read = list(csv.reader(io.StringIO(csv_text(pd.DataFrame({"label": [text], "mAP": [-1.5]}))), strict=True))
    assert len(read) == 2
    cell, number = read[1]
    assert number == "-1.50"
    if not re.fullmatch(r" *[+-]?([0-9]*\.?[0-9]*([eE][+-]?[0-9]+)?|inf|nan)", cell, re.IGNORECASE):
        assert cell.lstrip(" ")[:1] not in {*"=+-@\t\r\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"}


@pytest.mark.parametrize("number", ["-1.5", "+3", "-.5", "1e-3", "-inf", "-12.", "pgd", "osnet@plaza", ""])
def test_numbers_and_labels_are_left_as_they_are(number):
    assert csv_cell(number) == number


@hostile
@example(text="```\n# not mine\n````")
@example(text="a | b\n| c")
def test_markdown_ends_neither_at_a_fence_nor_at_a_cell(text):
    start, *inside, end = fenced([text], "sh")
    assert start == f"{end}sh"
    assert not any(re.match(rf" {{0,3}}{end}", line) for line in "\n".join(inside).split("\n"))
    cell = markdown_text(text)
    assert "\n" not in cell
    assert not re.search(r"(?<!\\)(\\\\)*[|`<]", cell.replace("&lt;", ""))


@hostile
@example(text="`")
@example(text="a``b`")
def test_code_in_a_line_ends_where_it_is_to(text):
    span = code_span(text)
    ticks = re.match("`+", span)[0]
    assert span.endswith(ticks)
    assert "\n" not in span
    inside = span[len(ticks) : -len(ticks)]
    assert all(len(run) < len(ticks) for run in re.findall("`+", inside))


@hostile
def test_latex_is_ascii_on_one_line_and_ends_no_group(text):
    latex = latex_text(text)
    assert latex.isascii()
    assert "\n" not in latex
    plain = re.sub(r"\\[{}%#_&$]", "", latex)
    assert plain.count("{") == plain.count("}")
    assert "%" not in plain


@hostile
@example(text="x" * 240)
@example(text="名" * 240)
@example(text="../../escape")
@example(text="\ud800")
def test_file_names_stay_in_their_folder_and_fit(text):
    name = file_name("matrix", text, "mAP")
    assert re.fullmatch(r"matrix[A-Za-z0-9._@+=-]*", name)
    assert len(f".{name}.png.4194304.tmp") <= 255
    assert name != file_name("matrix", text + "x", "mAP")


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "../../escape", "/etc", "a/b", "a\\b", "x" * 240, "名" * 80, "a\0b", "a\n", "CON",
             "nul.x", ".hidden", "-rf", "~root", "dot.", "a\u202eb", "\udcff"],
)  # fmt: skip
def test_what_cannot_name_a_folder_is_told(name):
    assert no_file_name(name)


@pytest.mark.parametrize("name", ["quick", "market-to-msmt", "my suite (v2)", "übung", "a+b@c", "v1.2", "[x]", "名"])
def test_what_can_name_a_folder_is_taken(name):
    assert no_file_name(name) == ""
