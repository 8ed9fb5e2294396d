"""Time of a report against the number of its cells, on a store with copies of the results of a small matrix."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch

from benchmarks.side_by_side import RUNS, Line, in_turn, line
from reid_attack_bench.execute.events import Outcome
from reid_attack_bench.execute.executor import execute
from reid_attack_bench.jobs import manifest
from reid_attack_bench.jobs.result import Result
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.report.write import MANY_CELLS
from reid_attack_bench.steps.step import Step
from reid_attack_bench.store import Store, local
from reid_attack_bench.store.local import MANIFEST
from reid_attack_bench.suites import parse

TOPIC = "reports"
LINEAR = 2.3
_VICTIM = f"{Path(__file__).with_name('small_victim.py')}:Small"


def measure() -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        few, many = (
            filled(root / name, *size) for name, size in (("few", (7, 30)), ("many", (14, 30)))
        )  # both without heat maps
        ratios = in_turn(reporting(many), reporting(few), clock=time.process_time)
    cells = " → ".join(f"{len(result.record.cells):,}" for result in (few, many))
    yield line(
        TOPIC, f"report, cells {cells}", "half as many", ratios, "× the time", f"≤ {LINEAR} (linear)",
        lambda x: x <= LINEAR, f"without heat maps, as above {MANY_CELLS:,} cells; {RUNS} runs of each",
    )  # fmt: skip


def filled(root: Path, attacks: int, victims: int) -> Result:
    """The result of a finished run of `attacks` on as many sources and targets as `victims`."""
    small, plan, made, store = plan_of(2, 2), plan_of(attacks, victims), Store(root / "small"), Store(root / "store")
    if causes := execute(small, made, torch.device("cpu")).causes:
        raise RuntimeError(causes[0])
    examples: dict[str, list[Step]] = defaultdict(list)
    for step in small.steps.values():
        examples[step.kind].append(step)
    with mock.patch.object(local, "_sync"):
        for number, step in enumerate(plan.steps.values()):
            example = examples[step.kind][number % len(examples[step.kind])]
            _copy(example, made, step, store)
    record = manifest.describe(plan, store, Outcome(), torch.device("cpu"), "python -m benchmarks reports")
    manifest.write(record, root)
    return Result.load(root, store.root)


def _copy(example: Step, made: Store, step: Step, store: Store) -> None:
    """Store the result of `example` as that of `step`."""
    stored = made.manifest(example.kind, example.key)
    with store.write(step.kind, step.key, {**stored, **step.record}) as folder:
        for path in made.folder(example.kind, example.key).iterdir():
            if path.name != MANIFEST:
                shutil.copyfile(path, folder / path.name)


def reporting(result: Result) -> Callable[[], list[Path]]:
    """Work that reads the results of a run and writes its report."""
    return lambda: Result.load(result.out, result.store).write_report()


def plan_of(attacks: int, victims: int) -> Plan:
    sizes = {"train_identities": 2, "test_identities": 16, "images_per_camera": 1, "queries_per_identity": 3}
    return make_plan(
        parse.parse(
            {
                "name": "reports",
                "image_size": [64, 32],
                "batch_size": 32,
                "datasets": {"plaza": sizes},
                "victims": {f"v{i}": {"use": _VICTIM, "options": {"seed": i}} for i in range(victims)},
                "attacks": {
                    f"a{i}": {"use": "metric_pgd", "epsilon": 8, "options": {"steps": i + 1}} for i in range(attacks)
                },
            }
        )
    )
