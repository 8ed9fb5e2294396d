"""The command line as it is offered: help that is not cut, completion of values, schemas."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from click.shell_completion import BashComplete
from click.testing import CliRunner
from jsonschema import Draft202012Validator

import reid_attack_bench
from reid_attack_bench import registry
from reid_attack_bench.cli import complete
from reid_attack_bench.cli import main as cli
from reid_attack_bench.data import catalogue
from reid_attack_bench.errors import BenchError
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.suites import parse

COMMANDS = [(), *((name,) for name in cli.cli.commands), ("data", "export"), ("data", "sheet"),
            *(("weights", name) for name in ("list", "get", "check"))]  # fmt: skip


def said(*arguments: str) -> str:
    result = CliRunner().invoke(cli.cli, list(arguments), terminal_width=80)
    if result.exception:
        raise result.exception
    return result.stdout


def found(command: tuple[str, ...]) -> click.Command:
    there: click.Command = cli.cli
    for name in command:
        assert isinstance(there, click.Group)
        there = there.commands[name]
    return there


def completions(*arguments: str) -> list[str]:
    """What a shell offers for the last of `arguments`."""
    shell = BashComplete(cli.cli, {}, "reid-attack-bench", complete.VARIABLE)
    return [item.value for item in shell.get_completions(list(arguments[:-1]), arguments[-1])]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_is_not_cut(command: tuple[str, ...]) -> None:
    text = said(*command, "--help")
    assert "..." not in text.replace("COMMAND [ARGS]...", "").replace("[ARGS]...", "")
    assert max(map(len, text.splitlines())) <= 80
    listed = text[text.index("Commands:") :] if "Commands:" in text else ""
    for name, each in getattr(found(command), "commands", {}).items():
        assert f"  {name} " in listed
        assert " ".join((each.help or "").split("\n\n")[0].split()) in " ".join(listed.split())


def test_commands_and_options_have_help() -> None:
    for command in COMMANDS:
        assert (found(command).help or "").split("\n\n")[0].strip().endswith(".")
        for parameter in found(command).params:
            assert parameter.param_type_name == "argument" or parameter.help, (command, parameter.name)


@pytest.mark.e2e
def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; from reid_attack_bench.cli.main import cli\n"
        "try: cli(['run', '--help'])\n"
        "except SystemExit: assert not {'torch', 'pandas', 'numpy'} & set(sys.modules), 'slow'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("run", ""), set(parse.shipped())),
        (("run", "qui"), {"quick"}),
        (("run", "quick", "--protocol", "reid-standard-2-"), {"reid-standard-2-small"}),
        (("evaluate", "--suite", "min"), {"minute"}),
        (("evaluate", "--victim", ""), set(registry.available("victim"))),
        (("evaluate", "--device", "c"), {"cpu", "cuda", "cuda:0"}),
        (("evaluate", "--suite", "defended", "--defends", "shuffle"), {"shufflenet_v2_x1_0"}),
        (("run", "quick", "--data", "market"), {"market1501"}),
        (("run", "quick", "--data", "plaza,st"), {"plaza,station"}),
        (("run", "quick", "--only", ""), {"attack=", "source=", "target=", "dataset="}),
        (("run", "quick", "--only", "dataset=plaza,attack=fg"), {"dataset=plaza,attack=fgsm"}),
        (("run", "quick", "--only", "dataset="), {"dataset=plaza", "dataset=station"}),
        (("run", "quick", "--precision", "b"), {"bfloat16"}),
        (("run", "nothing.yaml", "--only", "attack="), set()),
        (("fit", "metric"), {"metric_fgsm", "metric_pgd"}),
        (("list", "s"), {"suites"}),
        (("schema", ""), {"suite", "card"}),
        (("completion", ""), {"bash", "zsh", "fish"}),
        (("check", ), {"check-victim"}),
    ],
)  # fmt: skip
def test_values_are_completed(arguments: tuple[str, ...], expected: set[str]) -> None:
    assert set(completions(*arguments)) == expected


def test_every_data_set_is_offered() -> None:
    assert completions("data", "export", "") == list(catalogue.names())


def test_a_file_is_offered_where_a_name_may_be_one() -> None:
    shell = BashComplete(cli.cli, {}, "reid-attack-bench", complete.VARIABLE)
    assert [item.type for item in shell.get_completions(["run"], "./my")] == ["file"]
    assert [item.type for item in shell.get_completions(["evaluate", "--victim"], "my_")] == ["file"]


@pytest.mark.parametrize("name", ["quick", "defended", "decoder"])
def test_labels_that_are_offered_are_those_of_the_plan(name: str) -> None:
    suite = parse.load(name)
    cells = make_plan(suite).cells
    assert {cell.source for cell in cells} <= set(complete.victim_labels(suite, "source", "white-box"))
    assert {cell.target for cell in cells} <= set(complete.victim_labels(suite, "target"))
    for label in complete.victim_labels(suite, "target"):
        assert f"target={label}" in completions("run", name, "--only", "target=")


@pytest.mark.parametrize("shell", complete.SHELLS)
def test_a_completion_script_is_printed(shell: str) -> None:
    script = said("completion", shell)
    assert f"{complete.VARIABLE}={shell}_complete" in script
    assert "reid-attack-bench" in script
    with pytest.raises(BenchError, match="expected bash, zsh, fish"):
        said("completion", "tcsh")


@pytest.mark.e2e
def test_bash_completes_values_after_an_equals_sign(tmp_path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "reid-attack-bench"
    program.write_text(f"#!{sys.executable}\nfrom reid_attack_bench.cli.main import main\nmain()\n")
    program.chmod(0o755)
    (tmp_path / "script").write_text(said("completion", "bash"))
    code = (
        f'PATH="{folder}:$PATH"; source {tmp_path / "script"}; [[ $COMP_WORDBREAKS == *=* ]] && exit 1\n'
        "COMP_WORDS=(reid-attack-bench run quick --only attack=pg); COMP_CWORD=4\n"
        '_reid_attack_bench_completion reid-attack-bench attack=pg --only; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["attack=pgd"], done.stderr


def test_schemas_are_printed() -> None:
    schema = json.loads(said("schema", "suite"))
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(yaml.safe_load(parse.shipped()["quick"].read_text()))
    for name, path in (("suite", "suites/suite.schema.json"), ("card", "jobs/submission/card.schema.json")):
        published = Path(reid_attack_bench.__file__).parent / path
        assert said("schema", name) == published.read_text(encoding="utf-8")
    assert "properties" in json.loads(said("schema", "card"))
    with pytest.raises(BenchError, match="did you mean 'suite'"):
        said("schema", "suites")


def test_epsilons_of_the_command_line_replace_those_of_the_suite(tiny, write_suite, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = said("run", write_suite(tiny), "--epsilon", "2,6", "--dry-run")
    assert "craft pgd 2/255" in plan
    assert "craft pgd 6/255" in plan
    assert "8/255" not in plan
    with pytest.raises(BenchError, match="epsilon"):
        said("run", write_suite(tiny), "--epsilon", "2,x", "--dry-run")
