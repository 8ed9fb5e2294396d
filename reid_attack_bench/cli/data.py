"""Commands data export and data sheet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reid_attack_bench.cli import complete
from reid_attack_bench.cli.options import DATA_ROOT, Commands, bar, load_suite, suite_option

if TYPE_CHECKING:
    from reid_attack_bench.suites.suite import Suite


@click.group("data", cls=Commands)
def data_group() -> None:
    """Export and show data sets."""


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
    print(f"{count} images written to {written}; read them with --data-root {folder}")


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
    print(f"contact sheet of {name}{mark} written to {file}")


def load_data(name: str, chosen: Suite, data_root: Path | None) -> tuple[Any, Any]:
    """A data set and its decoded splits, with the sizes and counts of a suite."""
    from reid_attack_bench.data import catalogue as datasets
    from reid_attack_bench.data import split

    options = chosen.datasets.get(name, {})
    source = datasets.source(name, options, size=chosen.image_size, seed=chosen.seed, data_root=data_root)
    with bar(f"render {name}") as progress:
        return source, source.load(progress, split.in_memory)
