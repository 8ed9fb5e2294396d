"""The command line; each command is a function here, and what it does is in a module of its own."""

from __future__ import annotations

import importlib.resources
import json
import keyword
import re
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from reid_attack_bench import __version__, registry, suite
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.suite import Suite, VictimEntry

if TYPE_CHECKING:
    from reid_attack_bench.single import Single

DEFAULT_STORE = Path("runs/store")
_DEVICE = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
    help="Where to compute; auto takes the GPU where there is one.",
)  # fmt: skip
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")


@dataclass(frozen=True)
class RunOptions:
    """What every command that runs a suite takes."""

    out: Path
    store: Path
    data_root: Path | None
    device: str
    workers: int | None
    only: dict[str, list[str]]
    dry_run: bool
    as_json: bool


_INTERRUPTED = "interrupted; what is finished is kept: run the same command to go on"


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and exit status 1."""
    try:
        cli(standalone_mode=False)
    except BenchError as error:
        _complain(str(error))
        sys.exit(1)
    except click.exceptions.Abort:
        _complain(_INTERRUPTED)
        sys.exit(130)
    except click.ClickException as error:
        _complain(" ".join(error.format_message().split()))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _complain(_INTERRUPTED)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except OSError as error:
        _complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        sys.exit(1)


def _complain(text: str) -> None:
    print(f"error: {' '.join(text.split())}", file=sys.stderr)


class _Commands(click.Group):
    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            raise BenchError(f"no command is called '{args[0]}': {nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def cli() -> None:
    """How robust is a person re-identification model? Attacks × sources × targets, from nothing to a leaderboard."""


def _run_options(function: Any) -> Any:
    for option in reversed(
        [
            click.option("--out", type=click.Path(path_type=Path), help="Folder of the tables and plots [runs/SUITE]."),
            click.option(
                "--store", type=click.Path(path_type=Path), default=DEFAULT_STORE, show_default=True,
                help="Folder of every artefact; shared between runs.",
            ),
            click.option("--data-root", type=click.Path(path_type=Path), help="Folder of the real data sets."),
            _DEVICE,
            click.option("--workers", type=click.IntRange(min=1), help="Steps at once [a core each; one on a GPU]."),
            click.option("--seed", type=click.IntRange(min=0), help="Seed of the whole run [the suite's]."),
            click.option(
                "--precision", type=click.Choice(suite.PRECISIONS),
                help="Of victims when they are attacked and judged [the suite's].",
            ),
            click.option("--compile", "compiled", is_flag=True, help="Have torch.compile make victims faster."),
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


@cli.command("run")
@click.argument("suite_name", metavar="SUITE")
@click.option("--full", is_flag=True, help="At the size of the paper, where the suite has one.")
@click.option(
    "--data", "data", multiple=True, metavar="NAME,…",
    help="These data sets in place of the suite's, in its order; victims are trained on them instead.",
)  # fmt: skip
@_run_options
def run_command(
    suite_name: str,
    full: bool,
    data: tuple[str, ...],
    seed: int | None,
    precision: str | None,
    compiled: bool,
    out: Path | None,
    only: tuple[str, ...],
    **options: Any,
) -> None:
    """Run a SUITE (a shipped name, or a YAML file): train, attack, evaluate, report.

    Kill it whenever you like: the same command goes on where it stopped.
    """
    names = [name for text in data for name in text.split(",") if name]
    chosen = _computed(_seeded(suite.load(suite_name, full=full, data=names), seed), precision, compiled)
    folder = "+".join([chosen.name, *["full"] * full, *names])
    _run(chosen, RunOptions(out=out or Path("runs") / folder, only=_parse_only(only), **options))


@cli.command("evaluate")
@click.option("--victim", required=True, metavar="FILE.py:NAME", help="Your model, or the name of a registered one.")
@click.option(
    "--suite", "suite_name", default="quick", show_default=True, metavar="SUITE", help="Whose attacks and data."
)
@click.option("--name", help="How tables call it [NAME].")
@click.option("--option", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the victim (YAML value).")
@click.option("--train-on", multiple=True, metavar="DATASET", help="For a victim that the bench trains.")
@click.option("--defends", metavar="LABEL", help="For a defence: the victim of the suite that it defends.")
@_run_options
def evaluate_command(
    victim: str,
    suite_name: str,
    name: str | None,
    settings: tuple[str, ...],
    train_on: tuple[str, ...],
    defends: str | None,
    seed: int | None,
    precision: str | None,
    compiled: bool,
    out: Path | None,
    only: tuple[str, ...],
    **options: Any,
) -> None:
    """Put one new model beside the shipped ones: a target of every attack, and a white-box source of its own."""
    _stay_forkable(options["device"], options["workers"])
    chosen = _computed(_seeded(suite.load(suite_name), seed), precision, compiled)
    plugin = registry.find("victim", victim)
    label = name or plugin.short_name
    if hasattr(plugin.factory, "defend") and not defends:
        raise BenchError(f"{victim} is a defence: say which victim of suite {chosen.name} it defends, with --defends")
    if hasattr(plugin.factory, "fit") and not train_on and not defends:
        train_on = tuple(chosen.datasets)
    roles = ("white-box", "target")
    entry = VictimEntry(label, victim, _parse_settings(settings), train_on, roles=roles, defends=defends or "")
    for data_set in train_on:
        if data_set not in chosen.datasets:
            raise BenchError(
                f"--train-on {data_set}: not a data set of suite {chosen.name}: {nearest(data_set, chosen.datasets)}"
            )
    folder = out or Path("runs") / f"{chosen.name}+{label}"
    _run(chosen.with_victim(entry), RunOptions(out=folder, only=_parse_only(only), **options))


@cli.command("report")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--store", type=click.Path(path_type=Path), help="Where the store is now, if it was moved.")
@_AS_JSON
def report_command(run_dir: Path, store: Path | None, as_json: bool) -> None:
    """Write the tables and plots of RUN_DIR again from what is stored; no model is run.

    A run that was interrupted, or is still going, is reported as far as it has come.
    """
    results, _ = _stored_results(run_dir, store)
    _report(results, run_dir, as_json)


def _stored_results(run_dir: Path, store: Path | None) -> tuple[Any, Any]:
    """The results of a finished run and its store."""
    from reid_attack_bench.report.collect import collect, read_manifest
    from reid_attack_bench.store import Store

    manifest = read_manifest(run_dir)
    place = store or Path(manifest["store"])
    if not place.is_dir():
        raise BenchError(f"the store {place} of this run is gone; say where it is with --store")
    return collect(manifest, Store(place)), Store(place)


@cli.command("compare")
@click.argument("run_a", type=click.Path(path_type=Path))
@click.argument("run_b", type=click.Path(path_type=Path))
@click.option("--store", type=click.Path(path_type=Path), help="Where the store of both is now, if it was moved.")
@click.option(
    "--out", "outs", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="All of it, as .csv or .md."
)
@click.option("--rows", default=20, show_default=True, type=click.IntRange(min=1), help="Figures to print.")
def compare_command(run_a: Path, run_b: Path, store: Path | None, outs: tuple[Path, ...], rows: int) -> None:
    """What changed from RUN_A to RUN_B: the same cells on the same queries, with paired bootstrap intervals."""
    from reid_attack_bench.report import compare, tables
    from reid_attack_bench.store import replace_file

    for out in outs:
        if out.suffix not in (".csv", ".md"):
            raise BenchError(f"--out {out}: write a file that ends in .csv or .md")
    a, b = (_stored_results(run, store)[0] for run in (run_a, run_b))
    changes = compare.compare(a, b)
    names = (str(run_a), str(run_b))
    for out in outs:
        if out.suffix == ".csv":
            tables.write_csv(changes, out)
        else:
            replace_file(out, compare.to_markdown(a, b, changes, names).encode())
    shown = Table("figure", "Rank-1", "mAP", "change of mAP [95 %]", box=None, header_style="bold", expand=False)
    largest = changes.sort_values("mAP_change", key=abs, ascending=False, kind="stable")
    for row in tables.rows(largest.head(rows)):
        shown.add_row(
            escape(compare.name_of(row)),
            f"{row['rank1_a']:.1f} → {row['rank1_b']:.1f}",
            f"{row['mAP_a']:.1f} → {row['mAP_b']:.1f}",
            escape(compare.change_of(row, "mAP")),
        )
    console = Console()
    console.print(shown)
    if len(changes) > rows:
        print(f"… and {len(changes) - rows} more: --rows, or --out FILE.csv")
    for line in compare.summary(a, b, changes, names):
        print(line)


@cli.command("submit")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--victim", required=True, metavar="LABEL", help="Whose results, as the tables call it.")
@click.option(
    "--card", type=click.Path(path_type=Path), default=Path("card.yaml"), show_default=True, help="The victim's card."
)
@click.option("--out", type=click.Path(path_type=Path), help="The submission [VICTIM.zip].")
@click.option("--store", type=click.Path(path_type=Path), help="Where the store is now, if it was moved.")
def submit_command(run_dir: Path, victim: str, card: Path, out: Path | None, store: Path | None) -> None:
    """Pack a victim's card and its results of RUN_DIR into one file, for a pull request.

    Without a card, one is written for you to fill in.
    """
    from reid_attack_bench.store import replace_file
    from reid_attack_bench.submission import card_template, pack

    results, place = _stored_results(run_dir, store)
    if not card.exists():
        replace_file(card, card_template(results, victim).encode())
        raise BenchError(f"there was no card, so {card} was written: fill it in, then run the same command")
    target = pack(results, place, victim, card, out or Path(f"{victim}.zip"))
    print(f"{target}: {target.stat().st_size / 2**20:.1f} MiB; check it with reid-attack-bench verify {target}")


@cli.command("verify")
@click.argument("submission", type=click.Path(path_type=Path))
@click.option("--victim", metavar="FILE.py:NAME", help="The submitted model, where it is a file. Its code is run.")
@click.option("--sample", default=5, show_default=True, type=click.IntRange(min=1), help="Claims to recompute.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the sample.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder of the real data sets.")
@_DEVICE
def verify_command(
    submission: Path, victim: str | None, sample: int, seed: int, data_root: Path | None, device: str
) -> None:
    """Recompute a sample of somebody's claims from the images that they were made with."""
    from reid_attack_bench.console import RichWatcher
    from reid_attack_bench.execute import resolve_device
    from reid_attack_bench.submission import verify

    watcher = RichWatcher(Console(stderr=True))
    try:
        checks = verify(
            submission, victim=victim, sample=sample, seed=seed, data_root=data_root,
            device=resolve_device(device), watcher=watcher,
        )  # fmt: skip
    finally:
        watcher.close()
    for check in checks:
        pairs = [f"{rank1:.1f}/{mean:.1f}" for rank1, mean in (check.claimed, check.found)]
        verdict = check.problem or "holds"
        print(f"{check.what}: claimed {pairs[0]}, found {pairs[1]} (Rank-1/mAP): {verdict}")
    wrong = [check for check in checks if check.problem]
    if wrong:
        raise BenchError(f"{len(wrong)} of {len(checks)} claims do not hold; the first: {wrong[0].problem}")
    print(f"all {len(checks)} sampled claims hold")


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
            _DEVICE,
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


@cli.command("fit")
@click.argument("attack")
@click.option("--source", required=True, metavar="VICTIM", help="Label in the suite, registered name or FILE.py:NAME.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The fitted attack.")
@_single_options
def fit_command(attack: str, source: str, out: Path, **options: Any) -> None:
    """Train ATTACK against one victim and write it to FILE.safetensors, for `craft` on any images.

    The fit itself is kept in the store and shared with suites.
    """
    from reid_attack_bench import attack_file

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


@cli.command("craft")
@click.option("--attack", required=True, metavar="FILE|NAME", help="What `fit` wrote, or the name of an attack.")
@click.option("--images", required=True, type=click.Path(path_type=Path), metavar="DIR", help="PNG and JPEG images.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="For PNGs and measures.csv.")
@click.option("--source", metavar="VICTIM", help="Whom to attack, where --attack is a name: as in `fit`.")
@_single_options
def craft_command(attack: str, images: Path, out: Path, source: str | None, **options: Any) -> None:
    """Turn a folder of images into adversarial PNGs, each at its own size, and say how visible the change is."""
    from reid_attack_bench import attack_file
    from reid_attack_bench.execute import resolve_device
    from reid_attack_bench.folder import Armed, craft_folder

    chosen = SingleOptions(**options)
    if attack.endswith(attack_file.SUFFIX):
        if chosen.epsilon is not None or chosen.pixels is not None or chosen.settings:
            raise BenchError(f"{attack} was fitted for its budget: leave out --epsilon, --pixels and --option")
        about, state = attack_file.read(Path(attack))
        victim = None
        if source is not None:  # only an attack that asks its source again, while crafting, needs it
            single = _do_single("noise", source, replace(chosen, data=chosen.data or about.data))
            victim = single.victim(expected=about.source_digest)
        armed = Armed(Path(attack).name, about.attack(), about.threat, victim, state, about.seed)
    else:
        if source is None:
            raise BenchError(f"--attack {attack} is a name: say whom to attack with --source, or give a fitted FILE")
        armed = _do_single(attack, source, chosen).armed()
    device = resolve_device(chosen.device)
    with _bar("craft") as progress:
        seed = armed.seed if chosen.seed is None else chosen.seed
        table = craft_folder(armed, images, out, seed=seed, device=device, progress=progress)
    print(
        f"{len(table)} images in {out}: epsilon {armed.threat.epsilon}/255, largest change "
        f"{table['linf'].max():.0f}/255, mean SSIM {table['ssim'].mean():.3f}; each in measures.csv"
    )


def _do_single(attack: str, source: str, options: SingleOptions) -> Single:
    """What one attack on one victim takes, done and in the store."""
    from reid_attack_bench.console import RichWatcher
    from reid_attack_bench.execute import resolve_device
    from reid_attack_bench.single import Request, Single, plan_single
    from reid_attack_bench.store import Store

    device = resolve_device(options.device)
    base = _seeded(suite.load(options.suite_name), options.seed)
    settings = _parse_settings(options.settings)
    request = Request(attack, source, options.data, settings, options.epsilon, options.pixels)
    single = Single(plan_single(base, request, options.data_root), Store(options.store), device)
    watcher = RichWatcher(Console(stderr=True))
    try:
        single.perform(watcher)
    finally:
        watcher.close()
    return single


@cli.command("list")
@click.argument("what", metavar="attacks|victims|datasets|suites")
@_AS_JSON
def list_command(what: str, as_json: bool) -> None:
    """List what can be named: attacks, victims, datasets or suites."""
    rows = _listing(what)
    if as_json:
        print(json.dumps([{"name": name, "about": about, "from": origin} for name, about, origin in rows]))
        return
    table = Table("name", "what it is", "from", box=None, header_style="bold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


@cli.command("new-victim")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.py")
@click.option("--name", default="MyDefence", show_default=True, help="Of the class in it.")
def new_victim_command(file: Path, name: str) -> None:
    """Write FILE.py, a victim that runs as it is, with a place for your network and each part of a defence."""
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
        raise BenchError(f"{file} is there already and is left as it is: choose another name") from error
    victim = shlex.quote(f"{file}:{name}")
    print(f"{file} written; it runs as it is:")
    print(f"reid-attack-bench check-victim {victim}")
    print(f"reid-attack-bench evaluate --victim {victim} --suite quick")


@cli.command("check-victim")
@click.argument("victim", metavar="VICTIM")
@click.option("--option", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the victim (YAML value).")
@click.option("--suite", "suite_name", default="quick", show_default=True, metavar="SUITE", help="Whose data to use.")
@click.option("--data", metavar="DATASET", help="Which of its data sets [the first].")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder of the real data sets.")
@click.option("--source-label", is_flag=True, help="VICTIM is a label of the suite: take its settings from there.")
@_DEVICE
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
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
    """Is VICTIM (FILE.py:NAME or a registered name) what the bench takes it for? Clean images only, no attack.

    Exit status 1 where there is a fault.
    """
    from reid_attack_bench import conformance
    from reid_attack_bench.execute import resolve_device

    chosen = suite.load(suite_name)
    options = _parse_settings(settings)
    if source_label:
        entries = {entry.label: entry for entry in chosen.victims}
        if victim not in entries:
            raise BenchError(f"suite {chosen.name} has no victim '{victim}': {nearest(victim, entries)}")
        victim, options = entries[victim].use, {**entries[victim].options, **options}
    subject = conformance.ready(registry.find("victim", victim).build(options), victim)
    name = data or next(iter(chosen.datasets))
    _, splits = _load_data(name, chosen, data_root)
    images = conformance.sample(splits["query"], splits["gallery"])
    findings = conformance.check(
        subject, images.images, images.identities, images.cameras, device=resolve_device(device)
    )
    if as_json:
        rows = [asdict(finding) for finding in findings]
        print(json.dumps({"victim": victim, "dataset": name, "findings": rows}))
    else:
        colours = {"ok": "green", "note": "yellow", "fault": "red"}
        table = Table("", "check", "what was seen, and what to do", box=None, header_style="bold")
        for found in findings:
            said = Text(found.evidence)
            if found.advice:
                said.append(f"\n→ {found.advice}", style=colours[found.level])
            table.add_row(Text(found.level, style=colours[found.level]), found.name, said)
        Console().print(table)
    faults = list(dict.fromkeys(found.name for found in findings if found.level == "fault"))
    if faults:
        raise BenchError(f"{victim} is not ready to be attacked: {', '.join(faults)}; repair this first")


@cli.group("data", cls=_Commands)
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
    from reid_attack_bench.data.real import write_market1501

    _, splits = _load_data(name, _seeded(suite.load(suite_name), seed), data_root)
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

    source, splits = _load_data(name, suite.load(suite_name), data_root)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(contact_sheet(splits["train"], identities=identities, columns=columns)).save(file)
    print(f"contact sheet of {name}{' (synthetic)' if source.synthetic else ''} written to {file}")


def _load_data(name: str, chosen: Suite, data_root: Path | None) -> tuple[Any, Any]:
    """The source and the decoded splits of a data set, with the sizes and counts of a suite."""
    from reid_attack_bench.data import datasets

    options = chosen.datasets.get(name, {})
    source = datasets.source(name, options, size=chosen.image_size, seed=chosen.seed, data_root=data_root)
    with _bar(f"render {name}") as progress:
        return source, source.load(progress, datasets.in_memory)


def _stay_forkable(device: str, workers: int | None) -> None:
    """Keep torch to one thread here if steps will run in forked processes.

    A ready victim is made in this process: threads that torch starts for it are not there after a fork, and a worker
    of two threads or more would wait for them forever.
    """
    import torch

    from reid_attack_bench.execute import default_workers, resolve_device

    if (workers or default_workers(resolve_device(device))) > 1:
        torch.set_num_threads(1)


def _run(chosen: Suite, options: RunOptions) -> None:
    from reid_attack_bench import manifest as run_manifest
    from reid_attack_bench.console import JsonWatcher, RichWatcher
    from reid_attack_bench.execute import Outcome, default_workers, execute, missing_steps, repair, resolve_device
    from reid_attack_bench.plan import make_plan
    from reid_attack_bench.store import Store

    device = resolve_device(options.device)
    _stay_forkable(options.device, options.workers)
    if options.data_root is not None and not options.data_root.is_dir():
        raise BenchError(f"--data-root {options.data_root} is not a folder")
    store = Store(options.store)
    remember = None if options.dry_run else store.checked
    plan = make_plan(chosen, data_root=options.data_root, only=options.only, remember=remember)
    if options.dry_run:
        _print_plan(plan, {step.key for step in missing_steps(plan, store)}, store, options.as_json)
        return
    console = Console(stderr=options.as_json)
    watcher = JsonWatcher() if options.as_json else RichWatcher(console)
    for step in repair(plan, store):
        watcher.note(f"stored artefact '{step.label}' was corrupt; making it again")
    command = shlex.join(["reid-attack-bench", *sys.argv[1:]])
    earlier = run_manifest.read(options.out)
    planned = run_manifest.describe(plan, store, Outcome(), device, command, finished=False)
    if not run_manifest.is_reported(planned, earlier, options.out):
        run_manifest.write(planned, options.out)  # so that a run which is killed can be reported
    try:
        outcome = execute(plan, store, device, watcher, options.workers or default_workers(device))
    finally:
        watcher.close()
    manifest = run_manifest.describe(plan, store, outcome, device, command)
    if run_manifest.is_reported(manifest, earlier, options.out):
        run_manifest.write(earlier, options.out)
        if not options.as_json:
            print(
                f"nothing to do: {options.out} is up to date (reid-attack-bench report {options.out} writes it again)"
            )
    else:
        from reid_attack_bench.report.collect import collect  # slow to import, and a finished run has its report

        run_manifest.write(manifest, options.out)  # before the report, so that a failing report can be tried again
        written = _report(collect(manifest, store), options.out, options.as_json)
        run_manifest.write({**manifest, "files": [str(path.relative_to(options.out)) for path in written]}, options.out)
    if outcome.causes:
        more = f" (and {len(outcome.causes) - 1} more, see report.md)" if len(outcome.causes) > 1 else ""
        raise BenchError(f"{outcome.causes[0]}{more}; everything else is in {options.out}")


def _report(results: Any, out: Path, as_json: bool) -> list[Path]:
    from reid_attack_bench.report.text import leaderboard_table
    from reid_attack_bench.report.write import conclude, write_report

    with _bar("report", quiet=as_json) as progress:
        concluded = conclude(results)
        written = write_report(results, out, progress=progress, concluded=concluded)
    if as_json:
        print(json.dumps({"event": "report", "out": str(out), "files": [str(path) for path in written]}))
        return written
    console = Console()
    console.print(leaderboard_table(results, concluded.board))
    for note in results.notes:
        console.print(f"[yellow]note[/yellow] {note}", highlight=False, soft_wrap=True)
    console.print(
        f"{len(written)} files in {out}: report.html, report.md, leaderboard.csv, matrix.csv, tables, plots, sheets",
        highlight=False,
    )
    return written


class _bar:  # noqa: N801  used as a function
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


def _print_plan(plan: Any, todo: set[str], store: Any, as_json: bool) -> None:
    rows = [
        (step.kind, step.label, "to do" if key in todo else "stored" if store.has(step.kind, key) else "not needed",
         round(step.work), key)
        for key, step in plan.steps.items()
    ]  # fmt: skip
    if as_json:
        for kind, label, state, work, key in rows:
            print(json.dumps({"kind": kind, "label": label, "state": state, "image_passes": work, "key": key}))
        return
    for kind, label, state, work, key in rows:
        print(f"{state:10}  {kind:10}  {work:>9,}  {key[:12]}  {label}")
    ahead = sum(row[3] for row in rows if row[2] == "to do")
    print(
        f"\n{len(rows)} steps, {len(todo)} to do, {len(plan.cells)} cells of the matrix; about {ahead:,} image passes "
        "ahead (one pass: one image once forward through a victim; third column)"
    )


def _listing(what: str) -> list[tuple[str, str, str]]:
    if what in ("attacks", "victims"):
        kind = what[:-1]
        rows = []
        for name in registry.available(kind):
            plugin = registry.find(kind, name)
            about = (plugin.factory.__doc__ or "").strip().split("\n")[0]
            rows.append((name, about, plugin.origin))
        return rows
    if what == "datasets":
        from reid_attack_bench.data import datasets

        return [(name, about, "reid-attack-bench") for name, about in datasets.names().items()]
    if what == "suites":
        return [
            (name, " ".join(suite.load(name).description.split()), str(path)) for name, path in suite.shipped().items()
        ]
    raise BenchError(f"cannot list '{what}': {nearest(what, ('attacks', 'victims', 'datasets', 'suites'))}")


def _seeded(chosen: Suite, seed: int | None) -> Suite:
    return chosen if seed is None else chosen.with_seed(seed)


def _computed(chosen: Suite, precision: str | None, compiled: bool) -> Suite:
    return replace(chosen, precision=precision or chosen.precision, compile=compiled or chosen.compile)


def _parse_only(given: tuple[str, ...]) -> dict[str, list[str]]:
    only: dict[str, list[str]] = {}
    for part in (p.strip() for text in given for p in text.split(",") if p.strip()):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise BenchError(f"--only {part}: write KEY=VALUE, for example attack=pgd,target=osnet_x0_25@plaza")
        only.setdefault(key.strip(), []).append(value.strip())
    return only


def _parse_settings(given: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    settings = {}
    for part in given:
        key, equals, value = part.partition("=")
        if not equals:
            raise BenchError(f"--option {part}: write KEY=VALUE")
        settings[key] = yaml.safe_load(value)
    return settings
