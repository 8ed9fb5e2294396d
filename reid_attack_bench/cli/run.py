"""Commands run and evaluate."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from reid_attack_bench.cli import complete
from reid_attack_bench.cli.options import only_ours, parse_only, parse_settings, run_options, suite_option
from reid_attack_bench.cli.report import write_and_show
from reid_attack_bench.errors import BenchError
from reid_attack_bench.text import PlainConsole, one_line, say

if TYPE_CHECKING:  # commands import on demand, so that --help and completion are fast
    from reid_attack_bench.jobs.job import Job, Settings
    from reid_attack_bench.plan.plan import Plan


@click.command("run")
@click.argument("suite_name", metavar="SUITE", shell_complete=complete.suites)
@click.option("--full", is_flag=True, help="At the size of the paper, if the suite has one.")
@click.option(
    "--data", multiple=True, metavar="NAME,…", shell_complete=complete.datasets,
    help="Data sets that replace the suite's, in its order; victims are trained on them.",
)  # fmt: skip
@run_options
def run_command(suite_name: str, full: bool, data: tuple[str, ...], **options: Any) -> None:
    """Run a suite: train, attack, evaluate, report.

    SUITE is the name of a shipped suite or a YAML file. An interrupted run resumes when the same command is run again.
    """
    from reid_attack_bench.jobs import job as jobs

    settings = settings_of(options)
    names = [name for text in data for name in text.split(",") if name]
    with _apart(options["as_json"]):
        job = jobs.run_job(suite_name, settings, full=full, data=names, command=_command())
    _run(job, dry_run=options["dry_run"], as_json=options["as_json"])


@click.command("evaluate")
@click.option(
    "--victim", required=True, metavar="FILE.py:NAME", shell_complete=complete.victims,
    help="FILE.py:NAME, or a registered name.",
)  # fmt: skip
@suite_option("Suite that supplies attacks and data sets.")
@click.option("--name", help="Label of the victim in the tables.  [default: NAME]")
@click.option("--option", "given", multiple=True, metavar="KEY=VALUE", help="Setting of the victim (a YAML value).")
@click.option(
    "--train-on",
    multiple=True,
    metavar="DATASET",
    shell_complete=complete.datasets,
    help="Training data set of a recipe.",
)
@click.option(
    "--defends",
    metavar="LABEL",
    default="",
    shell_complete=complete.suite_victims,
    help="Victim of the suite that a defence is applied to.",
)
@run_options
def evaluate_command(
    victim: str,
    suite_name: str,
    name: str | None,
    given: tuple[str, ...],
    train_on: tuple[str, ...],
    defends: str,
    **options: Any,
) -> None:
    """Evaluate one new model next to the shipped ones.

    It is a target of every attack, and the source of white-box attacks on itself.
    """
    from reid_attack_bench.jobs import job as jobs

    with _apart(options["as_json"]):
        job = jobs.evaluate_job(
            victim, suite_name, settings_of(options), name=name, options=parse_settings(given), train_on=train_on,
            defends=defends, command=_command(),
        )  # fmt: skip
    _run(job, dry_run=options["dry_run"], as_json=options["as_json"])


def settings_of(options: Mapping[str, Any]) -> Settings:
    """Settings from the values of `run_options`."""
    from reid_attack_bench.jobs.job import Settings
    from reid_attack_bench.suites import parse

    names = (
        "seed",
        "out",
        "store",
        "data_root",
        "device",
        "workers",
        "threads",
        "memory_limit",
        "ray",
        "precision",
        "compile",
        "protocol",
    )
    given = {name: options[name] for name in names}
    epsilon = parse.read_epsilons(options["epsilon"]) if options["epsilon"] else ()
    return Settings(**given, epsilon=epsilon, only=parse_only(options["only"]))


def _command() -> str:
    return shlex.join(["reid-attack-bench", *sys.argv[1:]])


def _apart(as_json: bool) -> contextlib.AbstractContextManager[Any]:
    """Context in which standard output is left to us, if it is to be JSON."""
    return only_ours() if as_json else contextlib.nullcontext()


def _run(job: Job, *, dry_run: bool, as_json: bool) -> None:
    from reid_attack_bench.jobs import job as jobs
    from reid_attack_bench.jobs.progress import JsonListener, RichListener, listening

    if dry_run:
        with _apart(as_json):
            plan, todo = jobs.to_do(job)
        _print_plan(job, plan, todo, as_json)
        for note in plan.notes:
            say(f"note: {note}", sys.stderr if as_json else sys.stdout)
        return
    console = PlainConsole(stderr=as_json)
    with contextlib.ExitStack() as entered:
        own = JsonListener(entered.enter_context(only_ours())) if as_json else RichListener(console)
        listener = entered.enter_context(listening(own))
        result = jobs.perform(job, listener)
    if not result.record.files:  # an existing report implies that they exist
        write_and_show(result, as_json)
    elif not as_json:
        say(f"nothing to do: {result.out} is up to date (to write it again: reid-attack-bench report {result.out})")
    if result.failures:
        more = f" (and {len(result.failures) - 1} more, see report.md)" if len(result.failures) > 1 else ""
        raise BenchError(f"{result.failures[0]}{more}; everything else is in {result.out}")


def _print_plan(job: Job, plan: Plan, todo: set[str], as_json: bool) -> None:
    from reid_attack_bench.jobs import job as jobs
    from reid_attack_bench.jobs.time_left import in_words
    from reid_attack_bench.store import open_store

    store = open_store(job.settings.store)
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
        say(f"{state:10}  {kind:10}  {work:>9,}  {key[:12]}  {one_line(label)}")
    ahead = sum(row[3] for row in rows if row[2] == "to do")
    say(
        f"\n{len(rows)} steps, {len(todo)} to do, {len(plan.cells)} cells of the matrix; about {ahead:,} image passes "
        "ahead (one pass: one image once forward through a victim; third column)"
    )
    if todo:
        found, durations = jobs.cost(job, plan, todo)
        listed = ", ".join(f"{in_words(seconds)} on {count}" for count, seconds in durations.items())
        others = f", the others from {found.origin}" if found.measured < len(todo) else ""
        say(f"calculated time: {listed} workers or GPUs; rates of {found.measured} steps from this store{others}")
