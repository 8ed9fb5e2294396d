"""Step victim: train a victim, or examine a ready one."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from reid_attack_bench.contracts import LearnedDefence, Recipe, Victim, weights_digest
from reid_attack_bench.steps.examine import examine
from reid_attack_bench.steps.step import Facts, Progress, Step
from reid_attack_bench.steps.workspace import Workspace, fit_context


def run_victim(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    subject = step.subject
    if isinstance(subject, Victim):
        victim = subject
    else:
        state = None
        if isinstance(subject, (Recipe, LearnedDefence)):
            data = workspace.training_data(step.inputs["data"])
            context = fit_context(step, workspace, progress)
            if isinstance(subject, Recipe):
                state = subject.fit(data, context)
            else:
                state = subject.fit(workspace.victim(step.inputs["victim"]), data, context)
            save_file(state, out / "weights.safetensors")
            workspace.unfinished(step.key).unlink(missing_ok=True)
        victim = workspace.built(step, state)
    victim = victim.to(workspace.device).eval().requires_grad_(False)
    found = examine(victim, workspace.device)
    card = {
        "name": victim.name or type(victim).__name__,
        "distance": victim.distance,
        "input_size": list(victim.input_size),
        "randomised": victim.randomised,
        "differentiable": victim.differentiable,
        "defence": victim.defence,
        "citation": victim.citation,
        "weights": weights_digest(victim),
        **found,
    }
    (out / "card.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n")
    return card
