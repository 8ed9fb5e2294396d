"""Files and functions that fit in the head: what is longer has its reason written on it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("reid_attack_bench", "attacks", "victims")
LINES, FUNCTION_LINES, PARAMETERS = 350, 60, 7

LARGE_FILES = {
    "reid_attack_bench/metrics/ranking.py": "one kernel in NumPy and the same in Torch, read together",
    "reid_attack_bench/data/synthetic/person.py": "the renderer: drawing is long, not deep",
    "reid_attack_bench/data/synthetic/scene.py": "the renderer: drawing is long, not deep",
    "reid_attack_bench/report/html/template/report.js": "the page's script: one file is shipped within the page",
}


def too_large(root: Path) -> Iterator[str]:
    """Files and functions of the three packages above the limits, as PATH:LINE: what is too large."""
    for package in PACKAGES:
        for path in sorted(path for ending in ("*.py", "*.js") for path in (root / package).rglob(ending)):
            name, text = str(path.relative_to(root)), path.read_text()
            count = len(text.splitlines())
            if count > LINES and name not in LARGE_FILES:
                yield f"{name}:1: {count} lines, more than {LINES}: split it"
            if path.suffix == ".py":
                yield from (f"{name}:{line}" for line in _functions(text))


def _functions(text: str) -> Iterator[str]:
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        if first > 1 and re.match(r"\s*# size: \w", lines[first - 2]):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        each = node.args
        given = [argument.arg for argument in (*each.posonlyargs, *each.args, *each.kwonlyargs)]
        count = len([name for name in given if name not in ("self", "cls")])
        for number, limit, unit in ((length, FUNCTION_LINES, "lines"), (count, PARAMETERS, "parameters")):
            if number > limit:
                yield f"{node.lineno}: {node.name} has {number} {unit}, more than {limit}: split it or say why"


# What its owner is making smaller: where, and who does.


def test_files_and_functions_are_small_or_say_why() -> None:
    found = list(too_large(ROOT))
    assert not found, "\n".join(found)


def test_no_file_is_excused_for_nothing() -> None:
    assert all(len((ROOT / name).read_text().splitlines()) > LINES for name in LARGE_FILES)


BODY = "    x = 1\n" * FUNCTION_LINES


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"\n\ndef f(a):\n{BODY}", "m.py:3: f has 61 lines"),
        (f"class A:\n    async def f(self):\n{BODY.replace('    ', '        ')}", "m.py:2: f has 61 lines"),
        ("def f(a, b, c, d, e, /, f, *, g, h): ...", "m.py:1: f has 8 parameters"),
        (f"# size:\ndef f():\n{BODY}", "m.py:2: f has 61 lines"),
        ("x = 1\n" * 351, "m.py:1: 351 lines"),
        (f"# size: one table\ndef f(a, b, c, d, e, f, g, h):\n{BODY}", ""),
        (f"# size: one table\n@cache\n@other(\n  1)\ndef f():\n{BODY}", ""),
        (f"def f(self, a, b, c, d, e, f, g):\n{BODY[10:]}", ""),
        ("x = 1\n" * 350, ""),
    ],
)
def test_the_limits(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "attacks").mkdir()
    (tmp_path / "attacks" / "m.py").write_text(text)
    found = list(too_large(tmp_path))
    assert len(found) == bool(says), found
    assert not says or found[0].startswith(f"attacks/{says}, more than"), found
