"""Step fit: train a learned attack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file

from reid_attack_bench.adversary.cost import Cost
from reid_attack_bench.contracts import LearnedAttack, fit_threat, to_cpu
from reid_attack_bench.steps.attack_run import AttackRun, note_lost_cameras
from reid_attack_bench.steps.loan import on_loan
from reid_attack_bench.steps.step import Facts, Progress, Step, source_names, source_parents, sources_of, threat_of
from reid_attack_bench.steps.workspace import Workspace, fit_context

VERSION = 2


def fit_step(run: AttackRun, sources: Sequence[Step], data: Step, after: tuple[str, ...]) -> Step:
    """Train the attack of `run` against `sources`, one or several at once, on the training split of `data`.

    All threat models with one budget share it.
    """
    assert isinstance(run.attack, LearnedAttack)
    return Step(
        "fit",
        VERSION,
        f"{run.label} against {source_names(sources)}",
        run.config(fit_threat(run.threat)),
        run.implementation,
        {**source_parents(sources), "data": data},
        after,
        run.attack,
        work=run.attack.fit_work * len(sources),
    )


def run_fit(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    cost = Cost()
    source = workspace.source(step, cost)
    data = workspace.training_data(step.inputs["data"], source)
    with on_loan(source, f"attack {step.config['attack']}", source_names(sources_of(step))):
        state = step.plugin.fit(source, data, threat_of(step), fit_context(step, workspace, progress))
    save_file(to_cpu(state), out / "state.safetensors")
    workspace.unfinished(step.key).unlink(missing_ok=True)
    note_lost_cameras(step, cost, workspace.note)
    return {"forward_passes": cost.forward, "backward_passes": cost.backward}
