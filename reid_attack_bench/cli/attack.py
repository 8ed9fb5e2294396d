"""Commands fit and craft."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reid_attack_bench.cli import complete
from reid_attack_bench.cli.options import DATA_ROOT, DEVICE, STORE, bar, load_suite, parse_settings, suite_option
from reid_attack_bench.errors import BenchError
from reid_attack_bench.text import PlainConsole, one_line, say

if TYPE_CHECKING:
    from reid_attack_bench.jobs.single import SingleAttack


def _single_options(function: Any) -> Any:
    """Options of `fit` and `craft`."""
    for option in reversed(
        [
            click.option(
                "--data", metavar="DATASET", shell_complete=complete.datasets,
                help="Training data set of victim and attack.",
            ),
            suite_option("Suite that supplies sizes, counts, seed and labels."),
            click.option(
                "--epsilon", type=click.IntRange(0, 255), help="Budget in 1/255.  [default: the suite's, else 8]"
            ),
            click.option(
                "--pixels", type=click.IntRange(min=1), help="Largest number of changed pixels.  [default: all]"
            ),
            click.option(
                "--option", "settings", multiple=True, metavar="KEY=VALUE", help="Setting of the attack (a YAML value)."
            ),
            click.option("--seed", type=click.IntRange(min=0), help="Seed of the run.  [default: the suite's]"),
            STORE,
            DATA_ROOT,
            DEVICE,
        ]
    ):  # fmt: skip
        function = option(function)
    return function


@dataclass(frozen=True)
class SingleOptions:
    """Values of `_single_options`."""

    data: str | None
    suite_name: str
    epsilon: int | None
    pixels: int | None
    settings: tuple[str, ...]
    seed: int | None
    store: Path
    data_root: Path | None
    device: str


@click.command("fit")
@click.argument("attack", shell_complete=complete.attacks)
@click.option(
    "--source", required=True, metavar="VICTIM", shell_complete=complete.sources,
    help="Victim to train against: label in the suite, registered name or FILE.py:NAME.",
)  # fmt: skip
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="File of the fitted attack."
)
@_single_options
def fit_command(attack: str, source: str, out: Path, **options: Any) -> None:
    """Train an attack against one victim and write it to a file.

    The file ends in .safetensors; `craft` applies it to any images. The fit is also stored and shared with suites.
    """
    from reid_attack_bench.jobs import attack_file

    if out.suffix != attack_file.SUFFIX:
        raise BenchError(f"--out {out} must end in {attack_file.SUFFIX}: name it {out.with_suffix(attack_file.SUFFIX)}")
    single = _do_single(attack, source, SingleOptions(**options))
    about = single.write(out)
    pixels = f", {about.threat.pixels} pixels" if about.threat.pixels else ""
    say(f"{attack}, epsilon {about.threat.epsilon}/255{pixels}, fitted against {about.source}: {out}")
    say(f"reid-attack-bench craft --attack {shlex.quote(str(out))} --images DIR --out DIR")


@click.command("craft")
@click.option(
    "--attack", required=True, metavar="FILE|NAME", shell_complete=complete.attacks,
    help="File written by `fit`, or the name of an attack.",
)  # fmt: skip
@click.option("--images", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder of images.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder for PNGs and measures.csv."
)
@click.option(
    "--source", metavar="VICTIM", shell_complete=complete.sources,
    help="Source victim (required when --attack is a name).",
)  # fmt: skip
@_single_options
def craft_command(attack: str, images: Path, out: Path, source: str | None, **options: Any) -> None:
    """Attack a folder of images and write adversarial PNGs.

    Image sizes are kept; measures.csv gives the visibility of each perturbation. What cannot be read is named and left
    out; the exit status is then 1.
    """
    from reid_attack_bench.execute.device import resolve_device
    from reid_attack_bench.jobs import attack_file
    from reid_attack_bench.jobs.folder import craft_folder
    from reid_attack_bench.jobs.single import ready_from_file

    chosen = SingleOptions(**options)
    if attack.endswith(attack_file.SUFFIX):
        if chosen.epsilon is not None or chosen.pixels is not None or chosen.settings:
            raise BenchError(f"{attack} was fitted for its budget: leave out --epsilon, --pixels and --option")

        def victim(data: str) -> SingleAttack | None:  # required only by attacks that use their source while crafting
            return _do_single("noise", source, replace(chosen, data=chosen.data or data)) if source else None

        ready = ready_from_file(Path(attack), victim)
    elif source is None:
        raise BenchError(f"--attack {attack} is a name: give its source with --source, or a fitted FILE")
    else:
        ready = _do_single(attack, source, chosen).ready()
    device = resolve_device(chosen.device)
    with bar("craft") as progress:
        seed = ready.seed if chosen.seed is None else chosen.seed
        made = craft_folder(ready, images, out, seed=seed, device=device, progress=progress)
    table = made.table
    for note in made.notes:
        say(f"note: {note}", sys.stderr)
    if ready.source is not None and ready.source.uses_cameras:
        say(f"{ready.source.name} uses cameras, and images of a folder have none: it took them for unknown (-1)")
    say(
        f"{len(table)} images in {out}: epsilon {ready.threat.epsilon}/255, largest change "
        f"{table['linf'].max():.0f}/255, mean SSIM {table['ssim'].mean():.3f}; each in measures.csv"
    )
    for line in made.failed[:-1]:
        say(f"error: {one_line(line)}", sys.stderr)
    if made.failed:
        raise BenchError(f"{made.failed[-1]} ({len(made.failed)} of {len(made.failed) + len(table)} images left out)")


def _do_single(attack: str, source: str, options: SingleOptions) -> SingleAttack:
    """One attack on one victim, with all its steps in the store."""
    from reid_attack_bench.execute.device import resolve_device
    from reid_attack_bench.jobs.progress import RichListener, listening
    from reid_attack_bench.jobs.single import Request, SingleAttack, plan_single
    from reid_attack_bench.store import open_store

    device = resolve_device(options.device)
    base = load_suite(options.suite_name, options.seed)
    settings = parse_settings(options.settings)
    request = Request(attack, source, options.data, settings, options.epsilon, options.pixels)
    single = SingleAttack(plan_single(base, request, options.data_root), open_store(options.store), device)
    with listening(RichListener(PlainConsole(stderr=True))) as listener:
        single.perform(listener)
    return single
