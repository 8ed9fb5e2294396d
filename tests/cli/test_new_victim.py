"""new-victim: a file that runs as it is, under any name, and never over another one."""

from __future__ import annotations

import py_compile
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from reid_attack_bench import registry
from reid_attack_bench.cli import main as cli
from reid_attack_bench.contracts import Victim
from reid_attack_bench.errors import BenchError
from reid_attack_bench.jobs import skeleton
from reid_attack_bench.steps.examine import examine
from tests.test_pipeline import bench


def run(*arguments: str) -> tuple[str, BaseException | None]:
    result = CliRunner().invoke(cli.cli, list(arguments))
    return result.stdout, result.exception


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["MyDefence", "Robust2"])
def test_what_is_written_passes_the_check_as_it_is(tmp_path: Path, tiny, write_suite, name: str) -> None:
    file = tmp_path / "mine.py"
    said, error = run("new-victim", str(file), "--name", name)
    assert error is None, error
    assert f"check-victim {file}:{name}" in said
    text = file.read_text()
    assert "mine.py" in text
    assert ("MyDefence" in text) == (name == "MyDefence")
    victim = registry.find("victim", f"{file}:{name}").build({})
    assert isinstance(victim, Victim)
    assert examine(victim, torch.device("cpu"))["zero_gradient"] == 0.0
    said, error = run("check-victim", f"{file}:{name}", "--suite", write_suite(tiny))
    assert error is None, said


def test_what_it_suggests_in_comments_is_python(tmp_path: Path) -> None:
    """Every commented method, and every line for a model that is in a file already."""
    lines = Path(skeleton.__file__).read_text().splitlines()
    methods = [line.replace("    # ", "    ", 1) for line in lines]
    start = next(index for index, line in enumerate(lines) if "# def logits" in line)
    code = [line for line in methods[start:] if line.startswith(("    def", "        "))]
    assert sum("def " in line for line in code) == 3
    adapters = [
        line.strip() for line in lines if line.strip().startswith(("from reid_attack_bench.victims", "MyDefence ="))
    ]
    assert len(adapters) == 4 + 8
    file = tmp_path / "all.py"
    file.write_text("\n".join([*adapters, "class Mine:", *code]))
    py_compile.compile(str(file), doraise=True)
    exec("\n".join(line for line in adapters if line.startswith("from")), {})  # the names are there


@pytest.mark.e2e
def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("precious")
    process = bench("new-victim", "mine.py", cwd=tmp_path, expect=1)
    assert process.stderr.strip() == "error: mine.py already exists and was not changed: choose another name"
    assert (tmp_path / "mine.py").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("mine.txt",), r"name it mine\.py"), (("mine.py", "--name", "my-defence"), "not a valid class name")],
)
def test_wrong_names(monkeypatch, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    monkeypatch.chdir(tmp_path)
    _, error = run("new-victim", *arguments)
    with pytest.raises(BenchError, match=says):
        raise error or AssertionError("no error")
    assert list(tmp_path.iterdir()) == []
