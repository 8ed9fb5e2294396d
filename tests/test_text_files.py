"""Text files and the output of programs are UTF-8 whatever the locale: everything says so that reads or writes text."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [
    *(path for folder in ("reid_attack_bench", "attacks", "victims", "results", "benchmarks")
      for path in sorted((ROOT / folder).rglob("*.py"))),
    *sorted((ROOT / "docs").glob("*.py")),
]  # fmt: skip
# an ASCII locale, as of a batch job or a container; here are no locales of other encodings
PLAIN = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def unspecified(source: str) -> Iterator[int]:
    """Lines that read or write text without saying its encoding."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(each.arg in ("encoding", None) for each in node.keywords):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = {each.arg for each in node.keywords}
        modes = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        text_mode = not any("b" in mode for mode in modes)
        if (
            (name == "read_text" and not node.args)
            or (name == "write_text" and len(node.args) < 2)
            or (name in ("run", "Popen", "check_output") and given & {"text", "universal_newlines"})
            or (name == "open" and isinstance(node.func, ast.Name) and text_mode)
            or (name == "open" and not node.args and not isinstance(node.func, ast.Name))
            or (name == "open" and any(re.fullmatch("[rwax+t]+", mode) for mode in modes))
            or (name == "TextIOWrapper")
        ):
            yield node.lineno


def test_every_text_file_is_read_and_written_as_utf8():
    found = [f"{path.relative_to(ROOT)}:{line}" for path in FILES for line in unspecified(path.read_text("utf-8"))]
    assert found == []


def test_the_check_sees_what_it_is_for():
    lines = ["p.read_text()", "p.write_text(x)", "open(p)", "open(p, 'w')", "run(c, text=True)", "open(p, 'rb')"]
    fine = ["p.read_text('utf-8')", "p.write_text(x, encoding='utf-8')", "open(p, encoding='utf-8')", "p.read_bytes()"]
    assert list(unspecified("\n".join([*lines, *fine]))) == [1, 2, 3, 4, 5]


@pytest.mark.e2e
def test_in_an_ascii_locale_shipped_files_are_read_and_nothing_fails_on_a_character(tmp_path):
    code = "from reid_attack_bench.cli.main import main; main()"
    (tmp_path / "übung.yaml").write_text("name: übung\nextends: quick\nsuite: 1\n", encoding="utf-8")
    for arguments, status in ((["list", "suites"], 0), (["list", "protocols"], 0), (["run", "übung.yaml"], 1)):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=tmp_path, env=PLAIN, capture_output=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stderr.decode("utf-8", "replace")
        assert b"Traceback" not in done.stderr
    assert done.stderr.startswith(b"error: "), done.stderr
