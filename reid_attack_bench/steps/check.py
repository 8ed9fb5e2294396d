"""Step check: check a victim against its contract on clean images, as check-victim does."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from reid_attack_bench.checks.check import check
from reid_attack_bench.checks.result import CheckResult, not_checked
from reid_attack_bench.checks.subject import images_at, sample
from reid_attack_bench.errors import BenchError
from reid_attack_bench.steps.loan import as_it_was
from reid_attack_bench.steps.passes import with_smaller_batches
from reid_attack_bench.steps.step import Facts, Progress, Step
from reid_attack_bench.steps.workspace import Workspace

VERSION = 1

_QUERIES, _MATCHES = 64, 1

_WORK = 20.0
"""Forward passes per image, roughly; gradients count as three."""


def check_step(victim: Step, data: Step, batch_size: int) -> Step:
    """Check `victim` on a sample of the queries of `data` and their matches, in the batches of its attacks."""
    return Step(
        "check",
        VERSION,
        f"{victim.about} on {data.about}",
        {"queries": _QUERIES, "matches": _MATCHES},
        {"batch_size": batch_size},
        {"victim": victim, "data": data},
        work=_WORK * _QUERIES * (1 + _MATCHES),
    )


def run_check(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    """Facts: "results", the fields of each checks.result.CheckResult."""
    victim, splits = workspace.victim(step.inputs["victim"]), workspace.splits(step.inputs["data"])
    images = sample(splits["query"], splits["gallery"], step.config["queries"], step.config["matches"])

    def results(batch_size: int) -> list[CheckResult]:
        return check(
            victim,
            images_at(images, victim, step.parents["data"].about),
            images.identities,
            images.cameras,
            device=workspace.device,
            batch_size=batch_size,
            timed=False,
        )

    try:
        with as_it_was(victim):
            made, _ = with_smaller_batches(results, step.implementation["batch_size"], step.label, workspace.note)
    except BenchError as error:  # the data cannot be ranked, or one image does not fit into memory
        made = [not_checked(str(error))]
    return {"results": [asdict(result) for result in made]}
