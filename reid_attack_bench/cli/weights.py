"""Commands weights list, weights get and weights check."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from reid_attack_bench.cli import complete
from reid_attack_bench.cli.options import AS_JSON, Commands, bar
from reid_attack_bench.errors import BenchError
from reid_attack_bench.text import PlainConsole, one_line, say

if TYPE_CHECKING:
    from reid_attack_bench.jobs.weights import WeightsResult
    from reid_attack_bench.zoo.catalogue import ZooEntry

_ZOO = click.option(
    "--zoo", "zoo_file", type=click.Path(path_type=Path), metavar="FILE", help="Zoo file of your own; its names win."
)
_NAMES = click.argument("names", nargs=-1, metavar="NAME…", shell_complete=complete.zoo_models)


@click.group("weights", cls=Commands)
def weights_group() -> None:
    """List, get and check published weights."""


@weights_group.command("list")
@click.argument("text", default="", metavar="[TEXT]", shell_complete=complete.zoo_models)
@_ZOO
@AS_JSON
def list_command(text: str, zoo_file: Path | None, as_json: bool) -> None:
    """List published models, those with TEXT in their name or training data.

    Figures are Rank-1/mAP in % without attack, as published, on the training data set unless another one is named.
    Data sets marked † were withdrawn by their makers.
    """
    from reid_attack_bench.zoo.catalogue import models
    from reid_attack_bench.zoo.folder import weights_folder

    found = [each for each in models(zoo_file).values() if text in each.name or text in each.trained_on]
    if as_json:
        print(json.dumps([_plain(entry) for entry in found]))
        return
    table = Table(box=None, header_style="bold")
    for title in ("name", "architecture", "trained on", "published", "licence", "here"):
        table.add_column(title, no_wrap=title == "name")
    for entry in found:
        here = "yes" if _path(entry) else ""
        table.add_row(entry.name, entry.architecture, _data(entry), _figures(entry), entry.licence, here)
    PlainConsole().print(table)
    say(f"weights folder: {weights_folder()}")


@weights_group.command("get")
@_NAMES
@_ZOO
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Take files that were fetched elsewhere, by their original name, id on Google Drive or name in the zoo.",
)
@click.option(
    "--suite",
    "suite_name",
    default="",
    metavar="SUITE",
    shell_complete=complete.suites,
    help="Also get all that this suite lacks.",
)
@AS_JSON
def get_command(
    names: tuple[str, ...], zoo_file: Path | None, source: Path | None, suite_name: str, as_json: bool
) -> None:
    """Download published weights into the weights folder.

    A download that broke off is continued. A file is moved to its place once it has been checked.
    """
    from reid_attack_bench.jobs import weights

    entries = weights.wanted(names, zoo_file, suite_name)
    if not entries and not suite_name:
        raise BenchError("nothing to get: give names, see weights list, or --suite")
    _tell(weights.get(entries, source, lambda title: bar(title, quiet=as_json)), as_json)


@weights_group.command("check")
@_NAMES
@_ZOO
@AS_JSON
def check_command(names: tuple[str, ...], zoo_file: Path | None, as_json: bool) -> None:
    """Check that weights are whole, unchanged, and fit their architecture.

    Without names: all that are in the weights folder.
    """
    from reid_attack_bench.jobs import weights
    from reid_attack_bench.zoo.catalogue import models

    entries = weights.wanted(names, zoo_file) or [each for each in models(zoo_file).values() if _path(each)]
    _tell(weights.check(entries), as_json)


def _tell(results: list[WeightsResult], as_json: bool) -> None:
    """Print results; the exit status is 1 if one is an error."""
    failed = [each.error for each in results if each.error]
    if as_json:
        print(json.dumps([asdict(each) for each in results]))
    else:
        for each in results:
            if not each.error:
                say(f"{each.name}: {each.state}, {each.path}, SHA-256 {each.sha256}")
        for line in failed:
            say(f"error: {one_line(line)}", sys.stderr)
    if failed:
        raise click.exceptions.Exit(1)


def _plain(entry: ZooEntry) -> dict[str, Any]:
    path = _path(entry)
    return {
        "name": entry.name,
        "builder": entry.builder,
        "architecture": entry.architecture,
        "trained_on": list(entry.trained_on),
        "withdrawn": list(entry.withdrawn),
        "all_images": entry.all_images,
        "input": list(entry.input),
        "distance": entry.distance,
        "figures": [asdict(figure) for figure in entry.figures],
        "licence": entry.licence,
        "citation": entry.citation,
        "address": entry.url,
        "note": entry.note,
        "path": path and str(path),
    }


def _path(entry: ZooEntry) -> Path | None:
    from reid_attack_bench.zoo.folder import find_file

    try:
        return find_file(entry)
    except BenchError:  # a file of the user's zoo that is not there
        return None


def _data(entry: ZooEntry) -> str:
    sets = ", ".join(f"{name}†" if name in entry.withdrawn else name for name in entry.trained_on)
    return f"{sets} (all images)" if entry.all_images else sets


def _figures(entry: ZooEntry) -> str:
    return "\n".join(
        f"{figure.rank1}/{figure.mAP}" + ("" if (figure.tested_on,) == entry.trained_on else f" {figure.tested_on}")
        for figure in entry.figures
    )
