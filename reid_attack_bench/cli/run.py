"""Commands run and evaluate."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from reid_attack_bench import registry
from reid_attack_bench.cli.options import computed, parse_only, parse_settings, run_options, seeded
from reid_attack_bench.cli.report import write_and_show
from reid_attack_bench.contracts import Defence, Recipe
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.execute.device import stay_forkable
from reid_attack_bench.suites import parse
from reid_attack_bench.suites.suite import Suite, VictimEntry


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


@click.command("run")
@click.argument("suite_name", metavar="SUITE")
@click.option("--full", is_flag=True, help="At the size of the paper, where the suite has one.")
@click.option(
    "--data", "data", multiple=True, metavar="NAME,…",
    help="These data sets in place of the suite's, in its order; victims are trained on them instead.",
)  # fmt: skip
@run_options
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
    chosen = computed(seeded(parse.load(suite_name, full=full, data=names), seed), precision, compiled)
    folder = "+".join([chosen.name, *["full"] * full, *names])
    run_suite(chosen, RunOptions(out=out or Path("runs") / folder, only=parse_only(only), **options))


@click.command("evaluate")
@click.option("--victim", required=True, metavar="FILE.py:NAME", help="Your model, or the name of a registered one.")
@click.option(
    "--suite", "suite_name", default="quick", show_default=True, metavar="SUITE", help="Whose attacks and data."
)
@click.option("--name", help="How tables call it [NAME].")
@click.option("--option", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the victim (YAML value).")
@click.option("--train-on", multiple=True, metavar="DATASET", help="For a victim that the bench trains.")
@click.option("--defends", metavar="LABEL", help="For a defence: the victim of the suite that it defends.")
@run_options
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
    stay_forkable(options["device"], options["workers"])
    chosen = computed(seeded(parse.load(suite_name), seed), precision, compiled)
    plugin = registry.find("victim", victim)
    label = name or plugin.short_name
    if plugin.makes(Defence) and not defends:
        raise BenchError(f"{victim} is a defence: say which victim of suite {chosen.name} it defends, with --defends")
    if plugin.makes(Recipe) and not train_on and not defends:
        train_on = tuple(chosen.datasets)
    roles = ("white-box", "target")
    entry = VictimEntry(label, victim, parse_settings(settings), train_on, roles=roles, defends=defends or "")
    for data_set in train_on:
        if data_set not in chosen.datasets:
            raise BenchError(
                f"--train-on {data_set}: not a data set of suite {chosen.name}: {nearest(data_set, chosen.datasets)}"
            )
    folder = out or Path("runs") / f"{chosen.name}+{label}"
    run_suite(chosen.with_victim(entry), RunOptions(out=folder, only=parse_only(only), **options))


def run_suite(chosen: Suite, options: RunOptions) -> None:
    from reid_attack_bench.cli.progress import JsonListener, RichListener
    from reid_attack_bench.execute.device import default_workers, resolve_device
    from reid_attack_bench.execute.events import Outcome
    from reid_attack_bench.execute.executor import execute, missing_steps, repair
    from reid_attack_bench.jobs import manifest as run_manifest
    from reid_attack_bench.plan.planner import make_plan
    from reid_attack_bench.store import Store

    device = resolve_device(options.device)
    stay_forkable(options.device, options.workers)
    if options.data_root is not None and not options.data_root.is_dir():
        raise BenchError(f"--data-root {options.data_root} is not a folder")
    store = Store(options.store)
    remember = None if options.dry_run else store.checked
    plan = make_plan(chosen, data_root=options.data_root, only=options.only, remember=remember)
    if options.dry_run:
        print_plan(plan, {step.key for step in missing_steps(plan, store)}, store, options.as_json)
        return
    console = Console(stderr=options.as_json)
    listener = JsonListener() if options.as_json else RichListener(console)
    for step in repair(plan, store):
        listener.note(f"stored artefact '{step.label}' was corrupt; making it again")
    command = shlex.join(["reid-attack-bench", *sys.argv[1:]])
    earlier = run_manifest.read(options.out)
    planned = run_manifest.describe(plan, store, Outcome(), device, command, finished=False)
    if not run_manifest.is_reported(planned, earlier, options.out):
        run_manifest.write(planned, options.out)  # so that a run which is killed can be reported
    try:
        outcome = execute(plan, store, device, listener, options.workers or default_workers(device))
    finally:
        listener.close()
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
        written = write_and_show(collect(manifest, store), options.out, options.as_json)
        run_manifest.write({**manifest, "files": [str(path.relative_to(options.out)) for path in written]}, options.out)
    if outcome.causes:
        more = f" (and {len(outcome.causes) - 1} more, see report.md)" if len(outcome.causes) > 1 else ""
        raise BenchError(f"{outcome.causes[0]}{more}; everything else is in {options.out}")


def print_plan(plan: Any, todo: set[str], store: Any, as_json: bool) -> None:
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
