"""Options and helpers shared by commands."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from reid_attack_bench.cli import complete
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.store import DEFAULT_STORE
from reid_attack_bench.text import PlainConsole, one_line

if TYPE_CHECKING:
    from reid_attack_bench.suites.suite import Suite

DEVICE = click.option(
    "--device", metavar="auto|cpu|cuda|cuda:N,M", default="auto", show_default=True,
    shell_complete=complete.values("auto", "cpu", "cuda", "cuda:0"),
    help="Compute device; cuda is every visible GPU, auto the same if there is one.",
)  # fmt: skip

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")

DATA_ROOT = click.option("--data-root", type=click.Path(path_type=Path), help="Folder of the real data sets.")

MOVED_STORE = click.option("--store", type=click.Path(path_type=Path), help="Folder of the store, if moved.")

STORE = click.option(
    "--store", type=click.Path(path_type=Path), default=DEFAULT_STORE, show_default=True,
    help="Folder of all artefacts, or its address such as s3://BUCKET/PREFIX; shared between runs.",
)  # fmt: skip


def suite_option(help: str, default: str = "quick") -> Any:
    """Option --suite, passed as suite_name."""
    return click.option(
        "--suite", "suite_name", default=default, show_default=True, metavar="SUITE", shell_complete=complete.suites,
        help=help,
    )  # fmt: skip


class Commands(click.Group):
    """A command group that suggests the nearest command and lists commands by their full first sentence."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            raise BenchError(f"unknown command '{args[0]}': {nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # as with `| head`; click would end with status 1
            raise click.exceptions.Exit(141) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, _first_sentence(self.commands[name].help or "")) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return paragraph.split(". ")[0].removesuffix(".") + "."


def run_options(function: Any) -> Any:
    """Options of the commands that run a suite."""
    for option in reversed(
        [
            click.option(
                "--out", type=click.Path(path_type=Path), help="Folder of the report.  [default: runs/SUITE]"
            ),
            STORE,
            DATA_ROOT,
            DEVICE,
            click.option(
                "--workers", type=click.IntRange(min=1), help="Steps at once.  [default: one per core; one per GPU]"
            ),
            click.option(
                "--threads", type=click.IntRange(min=1),
                help="Threads of each step.  [default: 1; with GPUs, the cores divided by their number]",
            ),
            click.option("--memory-limit", metavar="4GiB", help="Memory of a step; one that uses more fails."),
            click.option(
                "--ray", is_flag=False, flag_value="auto", metavar="[ADDRESS]",
                help="Run the steps on a Ray cluster: of this address, or the running one, or a new one here.",
            ),
            click.option("--seed", type=click.IntRange(min=0), help="Seed of the run.  [default: the suite's]"),
            click.option(
                "--epsilon", metavar="N,…", help="Epsilons of every attack, in 1/255.  [default: the suite's]"
            ),
            click.option(
                "--precision", metavar="float32|bfloat16", shell_complete=complete.values("float32", "bfloat16"),
                help="Precision of victims while they are attacked and evaluated.  [default: the suite's]",
            ),
            click.option(
                "--protocol", metavar="NAME", shell_complete=complete.protocols,
                help="Fixed set of attacks, such as reid-standard-2.  [default: the suite's]",
            ),
            click.option("--compile", is_flag=True, help="Apply torch.compile to victims."),
            click.option(
                "--only", multiple=True, metavar="KEY=VALUE,…", shell_complete=complete.only,
                help="Restrict the cells: attack=, source=, target=, dataset=. Keys may be repeated.",
            ),
            click.option("--dry-run", is_flag=True, help="Print the plan and exit."),
            click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line instead of tables."),
        ]
    ):  # fmt: skip
        function = option(function)
    return function


class bar:  # noqa: N801  used as a function
    """Context manager of a progress callback, shown as a transient bar."""

    def __init__(self, title: str, quiet: bool = False) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        named = TextColumn("{task.description}", markup=False)
        columns = (named, BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self.bars = Progress(*columns, console=PlainConsole(stderr=True), transient=True, disable=quiet)
        self.title = one_line(title)

    def __enter__(self) -> Any:
        self.bars.start()
        task = self.bars.add_task(self.title, total=None)
        return lambda done, total, note: self.bars.update(task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self.bars.stop()


@contextlib.contextmanager
def only_ours() -> Iterator[TextIO]:
    """Context of a stream that alone is standard output: what plug-ins print goes to standard error.

    So does what programs print that they start, and libraries that do not ask Python.
    """
    stdout = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        try:
            number = stdout.fileno()
            kept = os.dup(number)
            stdout.flush()
            os.dup2(sys.stderr.fileno(), number)
        except (OSError, ValueError):  # in a notebook, or where there is no standard error
            yield stdout
            return
        out = os.fdopen(kept, "w", encoding="utf-8")
        try:
            yield out
        finally:
            out.flush()
            stdout.flush()
            os.dup2(kept, number)
            out.close()


def load_suite(name: str, seed: int | None = None) -> Suite:
    """A suite by name or file, with `seed` if it is given."""
    from reid_attack_bench.suites import parse

    chosen = parse.load(name)
    return chosen if seed is None else chosen.with_seed(seed)


def parse_only(given: tuple[str, ...]) -> dict[str, list[str]]:
    only: dict[str, list[str]] = {}
    for part in (p.strip() for text in given for p in text.split(",") if p.strip()):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise BenchError(f"--only {part}: write KEY=VALUE, for example attack=pgd,target=osnet_x0_25@plaza")
        only.setdefault(key.strip(), []).append(value.strip())
    return only


def parse_settings(given: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    settings = {}
    for part in given:
        key, equals, value = part.partition("=")
        if not equals:
            raise BenchError(f"--option {part}: write KEY=VALUE")
        settings[key] = yaml.safe_load(value)
    return settings
