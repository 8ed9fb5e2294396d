"""Commands fit and craft."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from reid_attack_bench.cli.options import DEFAULT_STORE, DEVICE, bar, parse_settings, seeded
from reid_attack_bench.errors import BenchError
from reid_attack_bench.suites import parse

if TYPE_CHECKING:
    from reid_attack_bench.jobs.single import SingleAttack


def _single_options(function: Any) -> Any:
    """Options of `fit` and `craft`: which attack on which victim, and where."""
    for option in reversed(
        [
            click.option("--data", metavar="DATASET", help="What victim and attack are trained on."),
            click.option(
                "--suite", "suite_name", default="quick", show_default=True, metavar="SUITE",
                help="Whose sizes, counts, seed, victims and attacks to use by their labels.",
            ),
            click.option("--epsilon", type=click.IntRange(0, 255), help="Budget in 1/255 [the suite's, else 8]."),
            click.option("--pixels", type=click.IntRange(min=1), help="At most so many pixels change [all]."),
            click.option("--option", "settings", multiple=True, metavar="KEY=VALUE", help="Of the attack (YAML)."),
            click.option("--seed", type=click.IntRange(min=0), help="Seed of everything [the suite's]."),
            click.option(
                "--store", type=click.Path(path_type=Path), default=DEFAULT_STORE, show_default=True,
                help="Folder of every artefact; shared with suites.",
            ),
            click.option("--data-root", type=click.Path(path_type=Path), help="Folder of the real data sets."),
            DEVICE,
        ]
    ):  # fmt: skip
        function = option(function)
    return function


@dataclass(frozen=True)
class SingleOptions:
    """What `fit` and `craft` take of an attack on a victim."""

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
@click.argument("attack")
@click.option("--source", required=True, metavar="VICTIM", help="Label in the suite, registered name or FILE.py:NAME.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The fitted attack.")
@_single_options
def fit_command(attack: str, source: str, out: Path, **options: Any) -> None:
    """Train ATTACK against one victim and write it to FILE.safetensors, for `craft` on any images.

    The fit itself is kept in the store and shared with suites.
    """
    from reid_attack_bench.jobs import attack_file

    if out.suffix != attack_file.SUFFIX:
        raise BenchError(f"--out {out}: name it {out.with_suffix(attack_file.SUFFIX)}, it is a safetensors file")
    single = _do_single(attack, source, SingleOptions(**options))
    state = single.state()
    if state is None:
        raise BenchError(f"attack {attack} learns nothing: give its name to craft --attack {attack} --source {source}")
    about = single.about()
    attack_file.write(out, about, state)
    pixels = f", {about.threat.pixels} pixels" if about.threat.pixels else ""
    print(f"{attack}, epsilon {about.threat.epsilon}/255{pixels}, fitted against {about.source}: {out}")
    print(f"reid-attack-bench craft --attack {shlex.quote(str(out))} --images DIR --out DIR")


@click.command("craft")
@click.option("--attack", required=True, metavar="FILE|NAME", help="What `fit` wrote, or the name of an attack.")
@click.option("--images", required=True, type=click.Path(path_type=Path), metavar="DIR", help="PNG and JPEG images.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="For PNGs and measures.csv.")
@click.option("--source", metavar="VICTIM", help="Whom to attack, where --attack is a name: as in `fit`.")
@_single_options
def craft_command(attack: str, images: Path, out: Path, source: str | None, **options: Any) -> None:
    """Turn a folder of images into adversarial PNGs, each at its own size, and say how visible the change is."""
    from reid_attack_bench.execute.device import resolve_device
    from reid_attack_bench.jobs import attack_file
    from reid_attack_bench.jobs.folder import ReadyAttack, craft_folder

    chosen = SingleOptions(**options)
    if attack.endswith(attack_file.SUFFIX):
        if chosen.epsilon is not None or chosen.pixels is not None or chosen.settings:
            raise BenchError(f"{attack} was fitted for its budget: leave out --epsilon, --pixels and --option")
        about, state = attack_file.read(Path(attack))
        victim = None
        if source is not None:  # only an attack that asks its source again, while crafting, needs it
            single = _do_single("noise", source, replace(chosen, data=chosen.data or about.data))
            victim = single.victim(expected=about.source_digest)
        armed = ReadyAttack(Path(attack).name, about.attack(), about.threat, victim, state, about.seed)
    else:
        if source is None:
            raise BenchError(f"--attack {attack} is a name: say whom to attack with --source, or give a fitted FILE")
        armed = _do_single(attack, source, chosen).armed()
    device = resolve_device(chosen.device)
    with bar("craft") as progress:
        seed = armed.seed if chosen.seed is None else chosen.seed
        table = craft_folder(armed, images, out, seed=seed, device=device, progress=progress)
    print(
        f"{len(table)} images in {out}: epsilon {armed.threat.epsilon}/255, largest change "
        f"{table['linf'].max():.0f}/255, mean SSIM {table['ssim'].mean():.3f}; each in measures.csv"
    )


def _do_single(attack: str, source: str, options: SingleOptions) -> SingleAttack:
    """What one attack on one victim takes, done and in the store."""
    from reid_attack_bench.execute.device import resolve_device
    from reid_attack_bench.jobs.progress import RichListener, listening
    from reid_attack_bench.jobs.single import Request, SingleAttack, plan_single
    from reid_attack_bench.store import Store

    device = resolve_device(options.device)
    base = seeded(parse.load(options.suite_name), options.seed)
    settings = parse_settings(options.settings)
    request = Request(attack, source, options.data, settings, options.epsilon, options.pixels)
    single = SingleAttack(plan_single(base, request, options.data_root), Store(options.store), device)
    with listening(RichListener(Console(stderr=True))) as listener:
        single.perform(listener)
    return single
