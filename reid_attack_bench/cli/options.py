"""Options and helpers shared by commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.suites import suite
from reid_attack_bench.suites.suite import Suite

DEFAULT_STORE = Path("runs/store")

DEVICE = click.option(
    "--device", metavar="auto|cpu|cuda|cuda:N", default="auto", show_default=True,
    help="Where to compute; auto takes the GPU where there is one.",
)  # fmt: skip

AS_JSON = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")


class Commands(click.Group):
    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            raise BenchError(f"no command is called '{args[0]}': {nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


def run_options(function: Any) -> Any:
    for option in reversed(
        [
            click.option("--out", type=click.Path(path_type=Path), help="Folder of the tables and plots [runs/SUITE]."),
            click.option(
                "--store", type=click.Path(path_type=Path), default=DEFAULT_STORE, show_default=True,
                help="Folder of every artefact; shared between runs.",
            ),
            click.option("--data-root", type=click.Path(path_type=Path), help="Folder of the real data sets."),
            DEVICE,
            click.option("--workers", type=click.IntRange(min=1), help="Steps at once [a core each; one on a GPU]."),
            click.option("--seed", type=click.IntRange(min=0), help="Seed of the whole run [the suite's]."),
            click.option(
                "--epsilon", metavar="N,…", help="Budgets in 1/255 for every attack, in place of the suite's."
            ),
            click.option(
                "--precision", type=click.Choice(suite.PRECISIONS),
                help="Of victims when they are attacked and judged [the suite's].",
            ),
            click.option("--compile", is_flag=True, help="Have torch.compile make victims faster."),
            click.option(
                "--only", multiple=True, metavar="KEY=VALUE,…",
                help="Only these cells: attack=…, source=…, target=…, dataset=…; a key may come more than once.",
            ),
            click.option("--dry-run", is_flag=True, help="Print the plan and stop."),
            click.option("--json", "as_json", is_flag=True, help="One JSON object per line instead of tables."),
        ]
    ):  # fmt: skip
        function = option(function)
    return function


class bar:  # noqa: N801  used as a function
    """A progress callback with a bar, the time left and nothing behind it when done."""

    def __init__(self, title: str, quiet: bool = False) -> None:
        from rich.progress import Progress

        self.bars = Progress(console=Console(stderr=True), transient=True, disable=quiet)
        self.title = title

    def __enter__(self) -> Any:
        self.bars.start()
        task = self.bars.add_task(self.title, total=None)
        return lambda done, total, note: self.bars.update(task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self.bars.stop()


def seeded(chosen: Suite, seed: int | None) -> Suite:
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
