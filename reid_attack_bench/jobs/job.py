"""Jobs: a suite with the settings of a run, ready to be planned and run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from reid_attack_bench import registry
from reid_attack_bench.contracts import Defence, Recipe, Victim, bound
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.execute.device import default_threads, resolve_device, resolve_devices
from reid_attack_bench.execute.estimate import Estimate, estimate, simulate
from reid_attack_bench.execute.events import Listener, Outcome
from reid_attack_bench.execute.executor import execute, missing_steps
from reid_attack_bench.execute.memory import read_limit
from reid_attack_bench.jobs import manifest
from reid_attack_bench.jobs.live import live_plugin
from reid_attack_bench.jobs.result import Result
from reid_attack_bench.mistakes import shown
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.registry import Plugin
from reid_attack_bench.report.ready import check_report
from reid_attack_bench.steps.examine import examine
from reid_attack_bench.store import DEFAULT_STORE, open_store
from reid_attack_bench.suites import parse
from reid_attack_bench.suites.suite import PRECISIONS, Suite, VictimEntry
from reid_attack_bench.text import folder_name, no_file_name

Only = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Settings:
    """Settings of a run, the same in Python and on the command line. None and empty values keep those of the suite.

    Attributes:
        seed: seed of the whole run.
        epsilon: epsilons of every attack, in 1/255.
        only: restricts the cells: "attack", "source", "target", "dataset" → values.
        out: folder of the report; by default runs/SUITE.
        store: folder of all artefacts, shared between runs.
        data_root: folder of the real data sets.
        device: "auto" (the GPUs if there are any), "cpu", "cuda" (all visible GPUs) or "cuda:N,M".
        workers: number of steps at once, each in its own process if more than one; None for as many as cores and
            memory allow. There is at least one per GPU.
        threads: number of threads of each step, whatever the number of workers; None for 1 on a CPU, and with GPUs the
            cores divided by their number. Rounding depends on it.
        memory_limit: memory that a step may use, such as "4GiB", see `execute.memory`; one that uses more fails.
        ray: address of a Ray cluster that runs the steps, "auto" or "local", see `execute.ray.start`; None to run them
            on this machine.
        precision: "float32" or "bfloat16", for victims while they are attacked and evaluated.
        compile: whether torch.compile is applied to victims.
        protocol: fixed set of attacks in place of that of the suite, see `suites.protocols`.
    """

    seed: int | None = None
    epsilon: tuple[int, ...] = ()
    only: Mapping[str, Sequence[str]] = field(default_factory=dict)
    out: Path | None = None
    store: Path = DEFAULT_STORE
    data_root: Path | None = None
    device: str = "auto"
    workers: int | None = 1
    threads: int | None = None
    memory_limit: str | None = None
    ray: str | None = None
    precision: str | None = None
    compile: bool = False
    protocol: str | None = None

    @staticmethod
    def of(
        *,
        epsilon: int | Iterable[int] | None = None,
        only: Only | None = None,
        out: Path | str | None = None,
        store: Path | str = DEFAULT_STORE,
        data_root: Path | str | None = None,
        **others: Any,
    ) -> Settings:
        """Settings from convenient types: a single value for a list, text for a path."""
        return Settings(
            epsilon=(epsilon,) if isinstance(epsilon, int) else tuple(epsilon or ()),
            only={name: [given] if isinstance(given, str) else list(given) for name, given in (only or {}).items()},
            out=None if out is None else Path(out),
            store=Path(store),
            data_root=None if data_root is None else Path(data_root),
            **others,
        )

    def apply(self, suite: Suite) -> Suite:
        """The suite with the seed, protocol, epsilons, precision and compilation of these settings."""
        if self.precision is not None and self.precision not in PRECISIONS:
            raise BenchError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        chosen = suite if self.seed is None else suite.with_seed(self.seed)
        chosen = parse.with_protocol(chosen, self.protocol) if self.protocol else chosen
        chosen = chosen.with_epsilons(self.epsilon) if self.epsilon else chosen
        return replace(chosen, precision=self.precision or chosen.precision, compile=self.compile or chosen.compile)


@dataclass(frozen=True)
class Job:
    """A suite that is ready to be planned and run.

    Attributes:
        suite: with its settings applied.
        out: folder of the report.
        settings: how and where it runs.
        live: label → plug-in of a victim in memory.
        command: command line or Python call, for the run record.
    """

    suite: Suite
    out: Path
    settings: Settings
    live: Mapping[str, Plugin] = field(default_factory=dict)
    command: str = ""


def run_job(
    suite: str | Path | Suite, settings: Settings, *, full: bool = False, data: Sequence[str] = (), command: str = ""
) -> Job:
    """The job of `run`."""
    if isinstance(suite, Suite):
        if full or data:
            raise BenchError("full and data require a suite given by name or file")
        chosen = suite
    else:
        chosen = parse.load(str(suite), full=full, data=data)
    if mistake := no_file_name(chosen.name):
        raise BenchError(
            f"the name of the suite, {shown(chosen.name)}, {mistake}: its results go into a folder of that name; "
            "give it another with name"
        )
    folder = folder_name("+".join([chosen.name, *["full"] * full, *data]))
    return Job(settings.apply(chosen), settings.out or Path("runs") / folder, settings, command=command)


# size: the arguments of `evaluate` for a named victim
def evaluate_job(
    victim: str,
    suite: str | Path | Suite,
    settings: Settings,
    *,
    name: str | None = None,
    options: Mapping[str, Any],
    train_on: Sequence[str] = (),
    defends: str = "",
    command: str = "",
) -> Job:
    """The job of `evaluate` for a victim given by name.

    Raises:
        BenchError: no such victim or data set, or a defence without a victim to defend.
    """
    base = run_job(suite, settings, command=command)
    plugin = registry.find("victim", victim)
    if plugin.makes(Defence) and not defends:
        raise BenchError(
            f"{victim} is a defence: name the victim of suite {base.suite.name} that it defends, with defends"
        )
    if plugin.makes(Recipe) and not train_on and not defends:
        train_on = tuple(base.suite.datasets)
    for data_set in train_on:
        if data_set not in base.suite.datasets:
            raise BenchError(
                f"train_on {data_set}: not a data set of suite {base.suite.name}: "
                f"{nearest(data_set, base.suite.datasets)}"
            )
    entry = VictimEntry(
        name or plugin.short_name, victim, options, tuple(train_on), roles=("white-box", "target"), defends=defends
    )
    return _with_victim(base, entry)


def live_job(victim: Victim, suite: str | Path | Suite, settings: Settings, name: str | None, command: str) -> Job:
    base = run_job(suite, settings, command=command)
    device = resolve_device(settings.device)
    examine(bound(victim.to(device).eval().requires_grad_(False)), device)  # fail before any other step is run
    plugin = live_plugin(victim)
    entry = VictimEntry(name or plugin.short_name, plugin.key, roles=("white-box", "target"))
    return replace(_with_victim(base, entry), live={entry.label: plugin})


def _with_victim(base: Job, entry: VictimEntry) -> Job:
    out = base.settings.out or Path("runs") / folder_name(f"{base.suite.name}+{entry.label}")
    return replace(base, suite=base.suite.with_victim(entry), out=out)


def plan_of(job: Job, *, remember: Path | None = None) -> Plan:
    """The plan of a job.

    Args:
        remember: see `plan.planner.make_plan`.

    Raises:
        BenchError: an unknown name or setting.
    """
    root = job.settings.data_root
    if root is not None and not root.is_dir():
        raise BenchError(f"data root {root} is not a folder")
    return make_plan(job.suite, data_root=root, only=job.settings.only, remember=remember, live=job.live)


def to_do(job: Job) -> tuple[Plan, set[str]]:
    """The plan of a job and the keys of the steps missing from the store; nothing is written."""
    plan = plan_of(job)
    return plan, {step.key for step in missing_steps(plan, open_store(job.settings.store))}


def cost(job: Job, plan: Plan, todo: Collection[str]) -> tuple[Estimate, dict[int, float]]:
    """Calculated seconds of the steps `todo`, and number of workers → seconds of the run.

    The workers are 1, 2, 4 and 8 and what the settings say. No GPU need be here.
    """
    asked, steps = job.settings.device, [step for key, step in plan.steps.items() if key in todo]
    on_gpu = asked.startswith("cuda") or (asked == "auto" and torch.cuda.is_available())
    found = estimate(plan, steps, open_store(job.settings.store), "cuda" if on_gpu else "cpu")
    workers = sorted({1, 2, 4, 8, job.settings.workers or 1})
    return found, {count: simulate(steps, found.seconds, count) for count in workers}


def perform(job: Job, listener: Listener) -> Result:
    """Run the steps missing from the store and write the run record. `Result.report` writes the report.

    Raises:
        BenchError: an invalid argument, a full disk, or a store in use by another run.
    """
    settings, store = job.settings, open_store(job.settings.store)
    if settings.threads is not None and settings.threads < 1:
        raise BenchError(f"threads must be at least 1, not {settings.threads}")
    limit = None if settings.memory_limit is None else read_limit(settings.memory_limit)
    devices = resolve_devices(settings.device)
    if job.live:  # what exists only in memory cannot be sent to another process
        devices = devices[:1]
    plan = plan_of(job, remember=store.checked)
    for note in plan.notes:
        listener.note(note)
    earlier = manifest.read(job.out)
    begun = Outcome(threads=settings.threads or default_threads(devices[0]))
    planned = manifest.describe(plan, store, begun, devices, job.command, finished=False)
    untouched = manifest.is_reported(planned, earlier, job.out)
    if not untouched:
        check_report(job.out)
        manifest.write(planned, job.out)  # so that a killed run can be reported
    outcome = execute(plan, store, devices, listener, settings.workers, settings.ray, settings.threads, limit)
    record = replace(planned, finished=True)
    if outcome.seconds or outcome.failed or outcome.rebuilt:  # else nothing changed: do not read the store again
        record = manifest.describe(plan, store, outcome, devices, job.command)
    if earlier is not None and not outcome.rebuilt and manifest.is_reported(record, earlier, job.out):
        record = earlier
    else:
        untouched = False
    if not untouched:
        manifest.write(record, job.out)
    return Result(job.out, settings.store, record, tuple(outcome.causes))
