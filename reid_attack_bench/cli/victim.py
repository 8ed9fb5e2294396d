"""Commands new-victim and check-victim."""

from __future__ import annotations

import importlib.resources
import json
import keyword
import re
import shlex
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reid_attack_bench.cli import complete
from reid_attack_bench.cli.data import load_data
from reid_attack_bench.cli.options import DATA_ROOT, DEVICE, load_suite, parse_settings, suite_option
from reid_attack_bench.errors import BenchError, nearest


@click.command("new-victim")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.py")
@click.option("--name", default="MyDefence", show_default=True, help="Class name.")
def new_victim_command(file: Path, name: str) -> None:
    """Write a victim that runs as it is, for you to put your model in.

    FILE.py has a place for your network and for each part of a defence.
    """
    if file.suffix != ".py":
        raise BenchError(f"{file}: name it {file.with_suffix('.py')}, it is a Python file")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise BenchError(f"--name {name}: a class cannot be called that; use letters, digits and _")
    template = importlib.resources.files("reid_attack_bench.victims").joinpath("skeleton.py").read_text("utf-8")
    text = re.sub(r"\bMyDefence\b", name, template).replace("FILE.py", file.name)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise BenchError(f"{file} exists already and was not changed: choose another name") from error
    victim = shlex.quote(f"{file}:{name}")
    print(f"{file} written; it runs as it is:")
    print(f"reid-attack-bench check-victim {victim}")
    print(f"reid-attack-bench evaluate --victim {victim} --suite quick")


@click.command("check-victim")
@click.argument("victim", metavar="VICTIM", shell_complete=complete.sources)
@click.option("--option", "settings", multiple=True, metavar="KEY=VALUE", help="Setting of the victim (a YAML value).")
@suite_option("Suite that supplies the data set.")
@click.option(
    "--data", metavar="DATASET", shell_complete=complete.datasets,
    help="Data set of the suite.  [default: the first]",
)  # fmt: skip
@DATA_ROOT
@click.option("--source-label", is_flag=True, help="VICTIM is a label of the suite, which has its settings.")
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
    from reid_attack_bench import registry
    from reid_attack_bench.execute.device import resolve_device
    from reid_attack_bench.jobs.check_victim import check as conformance
    from reid_attack_bench.jobs.check_victim import subject

    chosen = load_suite(suite_name)
    options = parse_settings(settings)
    if source_label:
        entries = {entry.label: entry for entry in chosen.victims}
        if victim not in entries:
            raise BenchError(f"suite {chosen.name} has no victim '{victim}': {nearest(victim, entries)}")
        victim, options = entries[victim].use, {**entries[victim].options, **options}
    model = subject.ready(registry.find("victim", victim).build(options), victim)
    name = data or next(iter(chosen.datasets))
    _, splits = load_data(name, chosen, data_root)
    images = subject.sample(splits["query"], splits["gallery"])
    findings = conformance.check(model, images.images, images.identities, images.cameras, device=resolve_device(device))
    if as_json:
        rows = [asdict(finding) for finding in findings]
        print(json.dumps({"victim": victim, "dataset": name, "findings": rows}))
    else:
        colours = {"ok": "green", "note": "yellow", "fault": "red"}
        table = Table("", "check", "evidence and advice", box=None, header_style="bold")
        for found in findings:
            said = Text(found.evidence)
            if found.advice:
                said.append(f"\n→ {found.advice}", style=colours[found.level])
            table.add_row(Text(found.level, style=colours[found.level]), found.name, said)
        Console().print(table)
    faults = list(dict.fromkeys(found.name for found in findings if found.level == "fault"))
    if faults:
        raise BenchError(f"{victim} is not ready to be attacked: {', '.join(faults)}; fix this first")
