"""Step victim: train a victim, or load a ready one, and check it against its contract."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from reid_attack_bench.contracts import Defence, LearnedDefence, Recipe, State, Victim, unbound, weights_digest
from reid_attack_bench.steps.data import source_of
from reid_attack_bench.steps.examine import examine
from reid_attack_bench.steps.loan import as_it_was, on_loan
from reid_attack_bench.steps.probe import probe
from reid_attack_bench.steps.step import Configured, Facts, Progress, Step
from reid_attack_bench.steps.workspace import Workspace, fit_context

VERSION = 2

OWN = "its own"
"""Distance on the card of a victim with a comparison of its own."""

_READY_WORK = 10.0  # forward passes that the check takes, roughly


def ready_step(name: str, use: Configured[Victim]) -> Step:
    """Check a victim that comes trained."""
    config = {"victim": use.key, "options": use.options, "weights": weights_digest(use.plugin)}
    seen = probe(use.plugin)
    implementation = {"code": use.code, **({"probe": seen} if seen else {})}
    return Step("victim", VERSION, name, config, implementation, plugin=use.plugin, work=_READY_WORK)


def trained_step(name: str, use: Configured[Recipe], data: Step, seed: int) -> Step:
    """Train a victim on the training split of `data`."""
    return Step(
        "victim",
        VERSION,
        name,
        {"victim": use.key, "options": use.options, "seed": seed},
        {"code": use.code},
        {"data": data},
        plugin=use.plugin,
        action="train",
        work=3.0 * use.plugin.epochs * source_of(data).counts["train"],
    )


def defended_step(name: str, use: Configured[Defence], victim: Step, data: Step | None, seed: int) -> Step:
    """Defend `victim`; a LearnedDefence trains on `data`, others leave data and seed out."""
    config = {"victim": use.key, "options": use.options}
    code = {"code": use.code}
    if not isinstance(use.plugin, LearnedDefence):
        return Step("victim", VERSION, name, config, code, {"victim": victim}, plugin=use.plugin, work=_READY_WORK)
    assert data is not None
    return Step(
        "victim",
        VERSION,
        name,
        {**config, "seed": seed},
        code,
        {"victim": victim, "data": data},
        plugin=use.plugin,
        action="train",
        work=use.plugin.fit_work,
    )


def training_data_of(victim: Step) -> tuple[str, ...]:
    """Data sets that the victim of a victim step was trained on, as declared or by the bench; none if unknown."""
    if "data" in victim.parents:
        own = (victim.parents["data"].about,)
        return own + (training_data_of(victim.parents["victim"]) if "victim" in victim.parents else ())
    if "victim" in victim.parents:
        return training_data_of(victim.parents["victim"])
    return victim.plugin.training_data or tuple(filter(None, (victim.plugin.trained_on,)))


def run_victim(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    state = _fitted(step, workspace, progress)
    if state is not None:
        save_file(state, out / "weights.safetensors")
        workspace.unfinished(step.key).unlink(missing_ok=True)
    victim = workspace.built(step, state)
    card = described(victim.to(workspace.device).eval().requires_grad_(False), workspace.device)
    (out / "card.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return card


def described(victim: Victim, device: torch.device) -> Facts:
    """What a victim on `device` declares of itself and `examine` finds, as stored with it."""
    with as_it_was(victim):
        found = examine(victim, device)
    return {
        "name": victim.name or type(victim).__name__,
        "distance": OWN if victim.own_comparison else victim.distance,
        "input_size": list(victim.input_size),
        "randomised": victim.randomised,
        "differentiable": victim.differentiable,
        "defence": victim.defence,
        "citation": victim.citation,
        "weights": weights_digest(unbound(victim)),
        **found,
    }


def _fitted(step: Step, workspace: Workspace, progress: Progress) -> State | None:
    """State of a recipe or a learned defence, newly trained; None for any other victim."""
    if isinstance(step.plugin, Recipe):
        data = workspace.training_data(step.inputs["data"])
        return step.plugin.fit(data, fit_context(step, workspace, progress))
    if isinstance(step.plugin, LearnedDefence):
        inner = workspace.victim(step.inputs["victim"])
        data = workspace.training_data(step.inputs["data"], inner)
        with on_loan(inner, f"defence {step.about}", step.parents["victim"].about):
            return step.plugin.fit(inner, data, fit_context(step, workspace, progress))
    return None
