"""Commands data export and data sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from reid_attack_bench.cli.options import Commands, bar, seeded
from reid_attack_bench.suites import parse
from reid_attack_bench.suites.suite import Suite


@click.group("data", cls=Commands)
def data_group() -> None:
    """Work with data sets."""


@data_group.command("export")
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--layout", type=click.Choice(["market1501"]), default="market1501", show_default=True, help="Of the files."
)
@click.option("--suite", "suite_name", default="quick", show_default=True, help="Whose sizes and counts to use.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder of the real data sets.")
@click.option("--seed", type=click.IntRange(min=0), help="Of the rendering [the suite's].")
def export_command(
    name: str, folder: Path, layout: str, suite_name: str, data_root: Path | None, seed: int | None
) -> None:
    """Write data set NAME into FOLDER in the layout of a real one, to be read with --data-root FOLDER."""
    from reid_attack_bench.data.readers.export import write_market1501

    _, splits = load_data(name, seeded(parse.load(suite_name), seed), data_root)
    written = write_market1501(splits, folder)
    count = sum(len(split.images) for split in splits.values())
    print(f"{count} images written to {written}; read them with --data-root {folder}")


@data_group.command("sheet")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--suite", "suite_name", default="quick", show_default=True, help="Whose sizes and counts to use.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder of the real data sets.")
@click.option("--identities", default=6, show_default=True, type=click.IntRange(1, 50), help="Rows.")
@click.option("--columns", default=12, show_default=True, type=click.IntRange(1, 50), help="Images in a row.")
def sheet_command(
    name: str, file: Path, suite_name: str, data_root: Path | None, identities: int, columns: int
) -> None:
    """Draw a contact sheet of data set NAME into FILE.png: a row per identity, its images over the cameras."""
    from PIL import Image

    from reid_attack_bench.data.synthetic import contact_sheet

    source, splits = load_data(name, parse.load(suite_name), data_root)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(contact_sheet(splits["train"], identities=identities, columns=columns)).save(file)
    print(f"contact sheet of {name}{' (synthetic)' if source.synthetic else ''} written to {file}")


def load_data(name: str, chosen: Suite, data_root: Path | None) -> tuple[Any, Any]:
    """The source and the decoded splits of a data set, with the sizes and counts of a suite."""
    from reid_attack_bench.data import catalogue as datasets
    from reid_attack_bench.data import split

    options = chosen.datasets.get(name, {})
    source = datasets.source(name, options, size=chosen.image_size, seed=chosen.seed, data_root=data_root)
    with bar(f"render {name}") as progress:
        return source, source.load(progress, split.in_memory)
