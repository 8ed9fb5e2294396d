"""Commands data check, data export and data sheet."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from reid_attack_bench.cli import complete
from reid_attack_bench.cli.options import AS_JSON, DATA_ROOT, Commands, bar, load_suite, parse_settings, suite_option
from reid_attack_bench.errors import BenchError
from reid_attack_bench.text import PlainConsole, say

if TYPE_CHECKING:
    from reid_attack_bench.data.source import OnDisk
    from reid_attack_bench.suites.suite import Suite


@click.group("data", cls=Commands)
def data_group() -> None:
    """Check, export and show data sets."""


@data_group.command("check")
@click.argument("name", required=False, shell_complete=complete.datasets)
@click.option("--layout", metavar="LAYOUT", help="Reader: a registered name or FILE.py:NAME.  [default: NAME]")
@click.option(
    "--root", type=click.Path(), help="Its folder, or list of images.  [default: that of its name in the data root]"
)
@click.option("--option", "given", multiple=True, metavar="KEY=VALUE", help="Option of the reader (a YAML value).")
@DATA_ROOT
@AS_JSON
def check_command(
    name: str | None,
    layout: str | None,
    root: str | None,
    given: tuple[str, ...],
    data_root: Path | None,
    as_json: bool,
) -> None:
    """Show what is found in a data set on disk.

    Prints images, identities and cameras of each split of data set NAME, and what is not read. Fails if no figure can
    be computed on it.
    """
    from reid_attack_bench.data import catalogue as datasets

    if name is None and layout is None:
        raise BenchError("name a data set, or give a layout and a root")
    chosen = {"layout": layout, "root": root}
    options = {**parse_settings(given), **{key: value for key, value in chosen.items() if value is not None}}
    name = name or Path(root or "").stem or "data"
    found = datasets.examine(name, options, data_root)
    if as_json:
        about = {"name": found.name, "title": found.title, "root": str(found.root), "genuine": found.genuine}
        about |= {"withdrawn": found.withdrawn, "published": found.published, **asdict(found.content)}
        print(json.dumps(about))
    else:
        _print_found(found)
    if found.content.mistake:
        raise BenchError(f"data set {name} in {found.root}: {found.content.mistake}")


def _print_found(found: OnDisk) -> None:
    """What was found in a data set, as a table and lines."""
    content, console = found.content, PlainConsole()
    title = found.name if found.title == found.name else f"{found.name} ({found.title})"
    console.print(f"{title} in {found.root}", soft_wrap=True)
    table = Table("split", "images", "identities", "cameras", box=None, header_style="bold")
    for part, counts in content.counts.items():
        table.add_row(part, *(f"{counts[column]:,}" for column in ("images", "identities", "cameras")))
    console.print(table)
    lines = [f"{content.matched:,} of {content.counts['query']['images']:,} queries have a match that is not junk"]
    lines += [f"withdrawn: {found.withdrawn}"] if found.withdrawn else []
    lines += ["numbers of images as published"] if found.published and found.genuine else []
    for line in [*lines, *found.notes]:
        console.print(line, soft_wrap=True)


@data_group.command("export")
@click.argument("name", shell_complete=complete.datasets)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--layout", type=click.Choice(["market1501"]), default="market1501", show_default=True, help="Layout of the files."
)
@suite_option("Suite that supplies sizes and counts.")
@DATA_ROOT
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the rendering.  [default: the suite's]")
def export_command(
    name: str, folder: Path, layout: str, suite_name: str, data_root: Path | None, seed: int | None
) -> None:
    """Write a data set in the folder layout of a real one.

    Data set NAME is written into FOLDER, to be read with --data-root FOLDER.
    """
    from reid_attack_bench.data.readers.export import write_market1501

    _, splits = load_data(name, load_suite(suite_name, seed), data_root)
    written = write_market1501(splits, folder)
    count = sum(len(split.images) for split in splits.values())
    say(f"{count} images written to {written}; read them with --data-root {folder}")


@data_group.command("sheet")
@click.argument("name", shell_complete=complete.datasets)
@click.argument("file", type=click.Path(path_type=Path))
@suite_option("Suite that supplies sizes and counts.")
@DATA_ROOT
@click.option("--identities", default=6, show_default=True, type=click.IntRange(1, 50), help="Identities, one per row.")
@click.option("--columns", default=12, show_default=True, type=click.IntRange(1, 50), help="Images per row.")
def sheet_command(
    name: str, file: Path, suite_name: str, data_root: Path | None, identities: int, columns: int
) -> None:
    """Draw a contact sheet of a data set.

    One row per identity of data set NAME, its images over the cameras, written to FILE. The images are those of the
    training split; of the gallery, if there is none.
    """
    from PIL import Image

    from reid_attack_bench.data.synthetic import contact_sheet

    source, splits = load_data(name, load_suite(suite_name), data_root)
    shown = splits.get("train", splits["gallery"])
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(contact_sheet(shown, identities=identities, columns=columns)).save(file)
    mark = " (synthetic)" if source.synthetic else " (withdrawn)" if source.withdrawn else ""
    say(f"contact sheet of {name}{mark} written to {file}")


def load_data(name: str, chosen: Suite, data_root: Path | None) -> tuple[Any, Any]:
    """A data set and its decoded splits, with the sizes and counts of a suite."""
    from reid_attack_bench.data import catalogue as datasets
    from reid_attack_bench.data import split

    options = chosen.datasets.get(name, {})
    source = datasets.source(name, options, size=chosen.image_size, seed=chosen.seed, data_root=data_root)
    with bar(f"render {name}") as progress:
        return source, source.load(progress, split.in_memory)
