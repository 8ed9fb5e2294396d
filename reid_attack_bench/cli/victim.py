"""Commands new-victim and check-victim."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from reid_attack_bench.cli import complete
from reid_attack_bench.cli.data import load_data
from reid_attack_bench.cli.options import DATA_ROOT, DEVICE, load_suite, only_ours, parse_settings, suite_option
from reid_attack_bench.errors import BenchError
from reid_attack_bench.text import PlainConsole, say, visible

if TYPE_CHECKING:
    from reid_attack_bench.checks.result import CheckResult

_COLOURS = {"ok": "green", "note": "yellow", "fault": "red"}


@click.command("new-victim")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.py")
@click.option("--name", default="MyDefence", show_default=True, help="Class name.")
def new_victim_command(file: Path, name: str) -> None:
    """Write a template victim, ready to run, for your model.

    FILE.py has marked places for your network and for each part of a defence.
    """
    from reid_attack_bench.jobs.new_victim import write_victim

    write_victim(file, name)
    victim = shlex.quote(f"{file}:{name}")
    say(f"{file} written; it runs without changes:")
    say(f"reid-attack-bench check-victim {victim}")
    say(f"reid-attack-bench evaluate --victim {victim} --suite quick")


# size: one parameter per option of the command
@click.command("check-victim")
@click.argument("victim", metavar="VICTIM", shell_complete=complete.sources)
@click.option("--option", "settings", multiple=True, metavar="KEY=VALUE", help="Setting of the victim (a YAML value).")
@suite_option("Suite that supplies the data set.")
@click.option(
    "--data", metavar="DATASET", shell_complete=complete.datasets,
    help="Data set of the suite.  [default: the first]",
)  # fmt: skip
@DATA_ROOT
@click.option("--source-label", is_flag=True, help="VICTIM is a label of the suite.")
@DEVICE
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def check_victim_command(
    victim: str,
    settings: tuple[str, ...],
    suite_name: str,
    data: str | None,
    data_root: Path | None,
    source_label: bool,
    device: str,
    as_json: bool,
) -> None:
    """Check a victim against its contract on clean images.

    VICTIM is FILE.py:NAME or a registered name. No attack is run. The exit status is 1 if there is a fault.
    """
    from reid_attack_bench.checks.check import check
    from reid_attack_bench.checks.subject import images_at, sample, sampled
    from reid_attack_bench.execute.device import resolve_device
    from reid_attack_bench.jobs.check_victim import find_victim

    suite = load_suite(suite_name)
    name = data or next(iter(suite.datasets))
    source, splits = load_data(name, suite, data_root)
    images, rows = sample(splits["query"], splits["gallery"]), sampled(splits["query"], splits["gallery"])
    places = [(part, row) for part, chosen in zip(("query", "gallery"), rows, strict=True) for row in chosen]
    with only_ours():
        model = find_victim(victim, parse_settings(settings), suite if source_label else None)
        shown = images_at(images, model, name)
        results = check(
            model,
            shown,
            images.identities,
            images.cameras,
            device=resolve_device(device),
            called=lambda place: source.image_name(*places[place]),
        )
    if as_json:
        findings = [asdict(result) for result in results]
        published = {place: asdict(values) for place, values in model.published.items()}
        print(json.dumps({"victim": victim, "dataset": name, "findings": findings, "published": published}))
    else:
        PlainConsole().print(_table(results))
        for place, values in model.published.items():
            say(f"published on {place}: Rank-1 {values.rank1}, mAP {values.mAP}; a run on it compares them")
    faults = list(dict.fromkeys(result.name for result in results if result.level == "fault"))
    if faults:
        raise BenchError(f"{victim} is not ready to be attacked: {', '.join(faults)}; fix this first")


def _table(results: list[CheckResult]) -> Table:
    table = Table("", "check", "evidence and advice", box=None, header_style="bold")
    for result in results:
        text = Text(visible(result.evidence))
        if result.advice:
            text.append(f"\n→ {visible(result.advice)}", style=_COLOURS[result.level])
        table.add_row(Text(result.level, style=_COLOURS[result.level]), result.name, text)
    return table
