"""Step fit: train an attack that learns."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from reid_attack_bench.steps.step import Facts, Progress, Step, threat_of
from reid_attack_bench.steps.workspace import Workspace, fit_context


def run_fit(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    source = workspace.source(step)
    data = workspace.training_data(step.inputs["data"])
    state = step.subject.fit(source, data, threat_of(step), fit_context(step, workspace, progress))
    save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, out / "state.safetensors")
    workspace.unfinished(step.key).unlink(missing_ok=True)
    return {}
