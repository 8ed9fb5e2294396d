"""Shell completion: the command `completion`, and completion of arguments and options.

Functions have the signature of click's `shell_complete`. They avoid importing torch where possible, for speed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.resources
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from reid_attack_bench.errors import BenchError

if TYPE_CHECKING:
    from reid_attack_bench.suites.suite import Suite

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

SHELLS = ("bash", "zsh", "fish")

VARIABLE = "_REID_ATTACK_BENCH_COMPLETE"

_BASH_WORDS = 'COMP_WORDBREAKS="${COMP_WORDBREAKS//[=:]/}"  # KEY=VALUE and FILE.py:NAME are one word\n'


@click.command("completion")
@click.argument("shell", metavar="bash|zsh|fish", shell_complete=lambda *_: [CompletionItem(name) for name in SHELLS])
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    Add the line to the startup file of the shell:

    \b
    ~/.bashrc:  eval "$(reid-attack-bench completion bash)"
    ~/.zshrc:   eval "$(reid-attack-bench completion zsh)"
    ~/.config/fish/config.fish:  reid-attack-bench completion fish | source
    """
    if shell not in SHELLS:
        raise BenchError(f"shell '{shell}' is not supported: expected {', '.join(SHELLS)}")
    made = get_completion_class(shell)
    assert made is not None
    source = made(ctx.find_root().command, {}, "reid-attack-bench", VARIABLE)
    text = source.source_template % source.source_vars()  # source() would start bash to get its version
    print((_BASH_WORDS if shell == "bash" else "") + text)


def values(*names: str) -> Complete:
    """Completion of fixed values."""
    return lambda ctx, parameter, incomplete: _starting(names, incomplete)


def suites(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete shipped suites, else files."""
    return _starting(_documents("reid_attack_bench.suites"), incomplete) or _files(incomplete)


def protocols(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete shipped protocols."""
    return _starting(_documents("reid_attack_bench.suites.protocols"), incomplete)


def _documents(package: str) -> list[str]:
    folder = importlib.resources.files(package)
    return sorted(each.name.removesuffix(".yaml") for each in folder.iterdir() if each.name.endswith(".yaml"))


def victims(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete registered victims, else files."""
    return _starting(_registered("victims"), incomplete) or _files(incomplete)


def attacks(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete registered attacks and those of the suite, else files."""
    chosen = _suite(ctx)
    labels = [entry.label for entry in chosen.attacks] if chosen else []
    return _starting([*labels, *_registered("attacks")], incomplete) or _files(incomplete)


def sources(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete victims of the suite and registered ones, else files."""
    chosen = _suite(ctx)
    labels = victim_labels(chosen) if chosen else []
    return _starting([*labels, *_registered("victims")], incomplete) or _files(incomplete)


def suite_victims(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete labels of the victims of the suite."""
    chosen = _suite(ctx)
    return _starting([entry.label for entry in chosen.victims], incomplete) if chosen else []


def datasets(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete data sets, separated by commas if the option takes several."""
    from reid_attack_bench.data import catalogue

    before, comma, last = incomplete.rpartition(",") if getattr(parameter, "multiple", False) else ("", "", incomplete)
    return [CompletionItem(before + comma + name) for name in catalogue.names() if name.startswith(last)]


def zoo_models(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete names of published models, those of the zoo file too."""
    from reid_attack_bench.zoo.catalogue import models

    try:
        return _starting(models(ctx.params.get("zoo_file")), incomplete)
    except BenchError:
        return []


def only(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete keys of `--only`, and after KEY= its values in the suite."""
    before, comma, last = incomplete.rpartition(",")
    key, equals, value = last.partition("=")
    if not equals:
        return _starting([f"{before}{comma}{name}=" for name in ("attack", "source", "target", "dataset")], incomplete)
    chosen = _suite(ctx)
    if chosen is None:
        return []
    known: dict[str, Iterable[str]] = {
        "attack": [entry.label for entry in chosen.attacks],
        "source": victim_labels(chosen, "source", "white-box"),
        "target": victim_labels(chosen, "target"),
        "dataset": chosen.datasets,
    }
    return [CompletionItem(f"{before}{comma}{key}={name}") for name in known.get(key, ()) if name.startswith(value)]


def victim_labels(suite: Suite, *roles: str) -> list[str]:
    """Labels of the models of a suite with their training data sets, as in the plan."""
    trained_on: dict[str, tuple[str, ...]] = {}
    for entry in suite.victims:
        trained_on[entry.label] = trained_on.get(entry.defends, ()) if entry.defends else entry.train_on
    return [
        f"{entry.label}@{data_set}" if data_set else entry.label
        for entry in suite.victims
        if not roles or set(roles) & set(entry.roles)
        for data_set in trained_on[entry.label] or ("",)
    ]


def _registered(group: str) -> list[str]:
    return sorted(entry.name for entry in importlib.metadata.entry_points(group=f"reid_attack_bench.{group}"))


def _suite(ctx: click.Context) -> Suite | None:
    """The suite given so far, or the default; None if it cannot be read."""
    from reid_attack_bench.suites import parse

    # an argument is in ctx.args while the last option has no value yet
    known = [parameter for parameter in ctx.command.params if parameter.name == "suite_name"]
    waiting = ctx.args[:1] if known and isinstance(known[0], click.Argument) else [each.default for each in known]
    name = ctx.params.get("suite_name") or next(iter(waiting), None)
    try:
        return parse.load(str(name)) if isinstance(name, str) else None
    except BenchError:
        return None


def _starting(names: Iterable[Any], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _files(incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]
