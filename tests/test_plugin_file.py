"""FILE.py of a user: what beside it imports, what it sees of the command line, where its words go, and its digest."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from reid_attack_bench import plugin_file, registry
from reid_attack_bench.cli import main as cli
from reid_attack_bench.errors import BenchError

ATTACK = """
{first}
from reid_attack_bench.contracts import Attack

class Mine(Attack):
    needs = frozenset()
    words = {words}

    def craft(self, source, batch, threat, generator):
        return batch.images
"""

VICTIM = """
{first}
from reid_attack_bench.contracts import Victim

class Mine(Victim):
    input_size = (64, 32)

    def __init__(self):
        super().__init__()
        {init}

    def embed(self, images):
        {embed}
        return images.mean(dim=3).flatten(1)
"""


@pytest.fixture(autouse=True)
def _as_new() -> Iterator[None]:
    """No module of a test stays."""
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        if "reid_attack_bench_plugin_" in name or plugin_file._file_beside(sys.modules[name]):
            del sys.modules[name]


def attack(path: Path, first: str, words: str = "None") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(ATTACK.format(first=first, words=words))
    return path


def victim(path: Path, first: str = "", init: str = "pass", embed: str = "pass") -> str:
    path.write_text(VICTIM.format(first=first, init=init, embed=embed))
    return f"{path}:Mine"


def words(path: Path) -> object:
    return registry.find("attack", f"{path}:Mine").factory.words


def test_modules_beside_the_file_import_while_it_loads(tmp_path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("from .inner import WORDS\n")
    (tmp_path / "pack" / "inner.py").write_text("import helper\nWORDS = helper.WORDS\n")
    (tmp_path / "helper.py").write_text("WORDS = 'from helper'\n")
    path, before = sys.path.copy(), sys.argv
    assert words(attack(tmp_path / "mine.py", "import pack", "pack.WORDS")) == "from helper"
    assert sys.path == path
    assert sys.argv is before
    assert not list(tmp_path.rglob("*.pyc")), "compiled files would hide a change within a second"


def test_helpers_of_one_name_are_not_mixed_up(tmp_path) -> None:
    for folder in ("one", "two"):
        attack(tmp_path / folder / "mine.py", "import helper", "helper.WORDS")
        (tmp_path / folder / "helper.py").write_text(f"WORDS = '{folder}'\n")
    assert [words(tmp_path / folder / "mine.py") for folder in ("one", "two", "one")] == ["one", "two", "one"]


def test_a_file_does_not_find_the_helpers_of_another(tmp_path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "helper.py").write_text("WORDS = 1\n")
    assert words(attack(tmp_path / "one" / "mine.py", "import helper", "helper.WORDS")) == 1
    with pytest.raises(BenchError, match="No module named 'helper'"):
        words(attack(tmp_path / "two" / "mine.py", "import helper", "helper.WORDS"))


def test_what_is_built_may_import_what_lies_beside(tmp_path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "helper.py").write_text(f"WORDS = '{folder}'\n")
    lines = "import helper; self.words = helper.WORDS"
    plugins = [registry.find("victim", victim(tmp_path / each / "mine.py", init=lines)) for each in ("one", "two")]
    assert [plugins[i].build({}).words for i in (0, 1, 0)] == ["one", "two", "one"]


def test_classes_of_helpers_stay_importable_by_name(tmp_path) -> None:
    """Pickle and type hints look a class up by its module."""
    (tmp_path / "helper_of_mine.py").write_text("class Kept:\n    pass\n")
    found = words(attack(tmp_path / "mine.py", "import helper_of_mine", "helper_of_mine.Kept"))
    assert sys.modules["helper_of_mine"].Kept is found


@pytest.mark.parametrize("kind", ["attack", "victim", "data set"])
def test_the_code_of_helpers_is_part_of_the_identity(tmp_path, kind) -> None:
    path = attack(tmp_path / "mine.py", "def later():\n    import helper\n", "1")
    alone = registry.find(kind, f"{path}:Mine").code
    (tmp_path / "unused.py").write_text("X = 1\n")
    assert registry.find(kind, f"{path}:Mine").code == alone
    (tmp_path / "helper.py").write_text("import inner\n")
    first = registry.find(kind, f"{path}:Mine").code
    (tmp_path / "inner.py").write_text("X = 1\n")
    second = registry.find(kind, f"{path}:Mine").code
    (tmp_path / "inner.py").write_text("X = 2\n")
    assert len({alone, first, second, registry.find(kind, f"{path}:Mine").code}) == 4


@pytest.mark.parametrize("line", ["import pack.net", "from pack import net", "from pack.net import X as Y"])
@pytest.mark.parametrize("init", [True, False])
def test_packages_beside_the_file_are_part_of_the_identity(tmp_path, line, init) -> None:
    pack = tmp_path / "pack"
    pack.mkdir()
    if init:
        (pack / "__init__.py").write_text("")
    (pack / "net.py").write_text("from .inner import X\n")
    (pack / "unused.py").write_text("")
    (pack / "inner.py").write_text("X = 1\n")
    path = attack(tmp_path / "mine.py", line, "1")
    before = plugin_file.code_of(path)
    (pack / "unused.py").write_text("X = 1\n")
    assert plugin_file.code_of(path) == before
    (pack / "inner.py").write_text("X = 2\n")
    assert plugin_file.code_of(path) != before
    assert words(path) == 1


def test_a_changed_helper_is_loaded_again(tmp_path) -> None:
    path = attack(tmp_path / "mine.py", "import helper", "helper.WORDS")
    (tmp_path / "helper.py").write_text("WORDS = 1\n")
    assert words(path) == 1
    (tmp_path / "helper.py").write_text("WORDS = 2\n")
    assert words(path) == 2


def test_the_file_sees_an_empty_command_line(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["reid-attack-bench", "evaluate", "--victim", "mine.py:Mine"])
    lines = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--config', default='none')"
    assert words(attack(tmp_path / "mine.py", lines, "p.parse_args().config")) == "none"


@pytest.mark.parametrize(
    ("first", "init"), [("import sys; sys.exit('no config')", "pass"), ("import sys", "sys.exit('no config')")]
)
def test_an_end_of_the_program_is_one_line(tmp_path, first, init) -> None:
    key = victim(tmp_path / "mine.py", first, init)
    with pytest.raises(BenchError, match=r"^mine\.py:\d+ ends the program with sys\.exit \(no config\): a victim file"):
        registry.find("victim", key).build({})


def test_json_of_a_victim_that_prints_is_json(tmp_path, tiny, write_suite) -> None:
    key = victim(tmp_path / "mine.py", "print('loads')", "print('builds')", "print('embeds')")
    result = CliRunner().invoke(cli.cli, ["check-victim", key, "--suite", write_suite(tiny), "--json"])
    assert json.loads(result.stdout)["victim"] == key
    for said in ("loads", "builds", "embeds"):
        assert said in result.stderr


@pytest.mark.e2e
def test_json_is_json_where_the_victim_and_its_programs_write_past_python(tmp_path, tiny, write_suite) -> None:
    noise = "import os; os.write(1, b'raw\\n'); os.system('echo from a shell')"
    key = victim(tmp_path / "mine.py", noise, noise, noise)
    code = "from reid_attack_bench.cli.main import main; main()"
    for arguments in (["check-victim", key], ["evaluate", "--victim", key, "--dry-run"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments, "--suite", str(write_suite(tiny)), "--json"],
            capture_output=True, text=True, encoding="utf-8", check=False, cwd=tmp_path,
        )  # fmt: skip
        assert all(json.loads(line) for line in done.stdout.splitlines()), done.stderr
        assert done.stdout
        assert "from a shell" in done.stderr


@pytest.mark.e2e
def test_a_reader_that_leaves_ends_the_command_without_a_word(tmp_path, tiny, write_suite) -> None:
    code = "from reid_attack_bench.cli.main import main; main()"
    for arguments in (["schema", "suite"], ["list", "attacks"]):
        command = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
        )
        command.stdout.close()
        assert command.stderr.read() == b""
        assert command.wait() == 141


def test_json_of_a_plan_is_json_where_the_victim_prints(tmp_path, tiny, write_suite) -> None:
    key = victim(tmp_path / "mine.py", "print('loads')", "print('builds')", "print('embeds')")
    arguments = ["evaluate", "--victim", key, "--suite", write_suite(tiny), "--dry-run", "--json"]
    lines = CliRunner().invoke(cli.cli, arguments).stdout.splitlines()
    assert {"victim", "rank"} <= {json.loads(line)["kind"] for line in lines}


@pytest.mark.parametrize(
    "line",
    ["from .net import WORDS", "from . import net; WORDS = net.WORDS", "from net import WORDS",
     "from ..top import WORDS", "from outer.inner.net import WORDS", "import outer.inner.net as net; WORDS = net.WORDS",
     "from outer.top import WORDS"],
)  # fmt: skip
def test_a_file_in_a_package_imports_from_it_in_every_way(tmp_path, line) -> None:
    path = tmp_path / "outer" / "inner" / "mine.py"
    attack(path, line, "WORDS")
    for module in ("outer/__init__", "outer/inner/__init__", "outer/top", "outer/inner/net"):
        (tmp_path / f"{module}.py").write_text(f"WORDS = '{module}'\n")
    found = words(path)
    assert found == ("outer/top" if "top" in line else "outer/inner/net")
    before = plugin_file.code_of(path)
    (tmp_path / f"{found}.py").write_text("WORDS = 'changed'\n")
    assert plugin_file.code_of(path) != before
    assert words(path) == "changed"
    assert str(tmp_path) not in sys.path
    assert "outer.top" not in sys.modules or plugin_file._file_beside(sys.modules["outer.top"])


def test_the_working_folder_is_that_of_before(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert words(attack(tmp_path / "mine.py", "import os; os.chdir('/')", "os.getcwd()")) == "/"
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("content", [b"x = 1\0\n", b"class Mine(:\n", b"\xff\xfe\0", b"def f(): f()\nf()\n", b"1/0"])
def test_a_file_that_is_no_program_is_one_line(tmp_path, content) -> None:
    (tmp_path / "mine.py").write_bytes(content)
    with pytest.raises(BenchError, match=r"mine.py(:[0-9]+)? does not import") as caught:
        words(tmp_path / "mine.py")
    assert "\n" not in str(caught.value)
