"""The time that a run will take: seconds of each step from measured rates, and the schedule on a number of workers."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reid_attack_bench.execute.parallel import Worker
from reid_attack_bench.execute.schedule import Queue, resident
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.steps.step import Step
from reid_attack_bench.store import Store

CPU_RATES = {
    "data": 0.018, "victim": 0.0024, "clean": 0.0016, "check": 0.0029, "fit": 0.0026, "craft": 0.0018,
    "features": 0.0020, "measure": 0.0061, "clean-rank": 0.009, "rank": 0.010, "reproduce": 0.010,
}  # fmt: skip
"""Kind → seconds of one image pass on one core, in results/quick/manifest.json."""

CPU_ORIGIN = "the published quick run: small networks, 128×64, a core of an AMD EPYC"

GPU_RATE = 0.001
"""Seconds of one image pass on a GPU, of the order of a ResNet-50 at 256×128. It was not measured."""

GPU_ORIGIN = "1,000 image passes a second, which was not measured on a GPU"


@dataclass(frozen=True)
class Estimate:
    """Calculated seconds of steps.

    Attributes:
        seconds: key → seconds.
        measured: number of steps whose rate is that of stored steps.
        origin: where the rates of the others come from.
    """

    seconds: Mapping[str, float]
    measured: int
    origin: str


def estimate(plan: Plan, todo: Iterable[Step], store: Store, device: str) -> Estimate:
    """Seconds of the steps `todo` on one worker.

    The rate of a step, in seconds per image pass, is that of the stored steps of `plan` of its kind that read the same
    victim, or else of its kind; or one that was published.

    Args:
        device: "cpu" or "cuda". Stored steps count if they ran on such a device; an old one without a word, on a CPU.
    """
    rates = _stored_rates(plan, store, device)
    seconds, measured = {}, 0
    for step in todo:
        rate = rates.get((step.kind, resident(step))) or rates.get((step.kind, ""))
        measured += rate is not None
        seconds[step.key] = _work(step) * (
            rate or (GPU_RATE if device == "cuda" else CPU_RATES.get(step.kind, CPU_RATES["craft"]))
        )
    return Estimate(seconds, measured, GPU_ORIGIN if device == "cuda" else CPU_ORIGIN)


def _stored_rates(plan: Plan, store: Store, device: str) -> dict[tuple[str, str], float]:
    """(kind, key of the victim, empty for any) → seconds per image pass of the stored steps."""
    spent: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for key, step in plan.steps.items():
        if not store.has(step.kind, key):
            continue
        about = store.manifest(step.kind, key)
        if about.get("device", "cpu") == device and about.get("seconds"):
            for place in {(step.kind, resident(step)), (step.kind, "")}:
                spent[place][0] += float(about["seconds"])
                spent[place][1] += _work(step)
    return {place: seconds / work for place, (seconds, work) in spent.items()}


def _work(step: Step) -> float:
    return max(step.work, 1.0)


def simulate(todo: Sequence[Step], seconds: Mapping[str, float], workers: int) -> float:
    """Duration in seconds of a run whose steps take these `seconds`, in the order in which a run starts them.

    Args:
        todo: steps in an order that satisfies their needs; needs that are not among them are stored.
        seconds: key → seconds.
        workers: number of workers, each with one step at a time.
    """
    queue, team = Queue(todo), [Worker() for _ in range(workers)]
    idle = list(range(workers))  # a heap: as in a run, the first that is idle is given the next step
    running: list[tuple[float, int]] = []
    now = 0.0
    while True:
        while queue and idle:
            number = heapq.heappop(idle)
            step = queue.take(team[number].loaded)
            team[number].begin(step)
            heapq.heappush(running, (now + seconds[step.key], number))
        if not running:
            return now
        now, number = heapq.heappop(running)
        heapq.heappush(idle, number)
        if (done := team[number].step) is not None:
            queue.finish(done.key)
