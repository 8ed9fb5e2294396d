"""One attack on one victim, outside a matrix. Its steps are shared with suites through the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from reid_attack_bench import registry
from reid_attack_bench.contracts import Attack, LearnedAttack, Recipe, State, ThreatModel, Victim, craft_threat
from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute.events import Listener
from reid_attack_bench.execute.executor import execute
from reid_attack_bench.files import expanded
from reid_attack_bench.jobs import attack_file
from reid_attack_bench.jobs.attack_file import AttackFile
from reid_attack_bench.jobs.folder import ReadyAttack
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.steps.step import Step
from reid_attack_bench.steps.workspace import Workspace
from reid_attack_bench.store import Store
from reid_attack_bench.suites.suite import AttackEntry, Suite, VictimEntry


@dataclass(frozen=True)
class Request:
    """An attack, its source victim and its settings.

    Attributes:
        attack: label in the suite, registered name or FILE.py:NAME.
        source: the same for the victim; "LABEL@DATASET" also gives its training data set.
        data: training data set of victim and attack; None if neither is trained.
        options: settings of the attack; they override those of the suite.
        epsilon, pixels: budget; None for that of the suite, or else epsilon 8 and all pixels.
    """

    attack: str
    source: str
    data: str | None
    options: Mapping[str, Any]
    epsilon: int | None = None
    pixels: int | None = None


@dataclass(frozen=True)
class SinglePlan:
    """A plan for one attack on one victim; `fit` is None unless the attack is learned."""

    plan: Plan
    entry: AttackEntry
    attack: Attack
    victim: Step
    fit: Step | None


@dataclass(frozen=True)
class SingleAttack:
    """One attack on one victim, with its plan and store."""

    laid_out: SinglePlan
    store: Store
    device: torch.device

    def perform(self, listener: Listener) -> None:
        """Run the steps missing from the store.

        Raises:
            BenchError: a step failed; the message gives its name and the reason.
        """
        outcome = execute(self.laid_out.plan, self.store, self.device, listener)
        if outcome.causes:
            raise BenchError(outcome.causes[0])

    def state(self) -> State | None:
        """State of the fitted attack, on the CPU; None if the attack is not learned."""
        fit = self.laid_out.fit
        if fit is None:
            return None
        return load_file(self.store.open(fit.kind, fit.key) / "state.safetensors")

    def victim(self, expected: str = "") -> Victim:
        """The victim, loaded on the device.

        Raises:
            BenchError: the digest of its weights is not `expected`.
        """
        step, steps = self.laid_out.victim, self.laid_out.plan.steps
        if expected and self._weights() != expected:
            raise BenchError(f"--source {self._label()} is not the model that the attack was fitted against")
        workspace = Workspace(
            lambda key: self.store.open(steps[key].kind, key), steps, self.device, self.store.unfinished
        )
        return workspace.victim(step.key)

    def ready(self) -> ReadyAttack:
        """The attack with its source and its state."""
        entry, attack = self.laid_out.entry, self.laid_out.attack
        threat = entry.threats[0]
        source = self.victim() if attack.needs else None
        return ReadyAttack(
            entry.label, attack, craft_threat(threat), source, self.state(), self.laid_out.plan.suite.seed
        )

    def write(self, path: Path) -> AttackFile:
        """Write the fitted attack to `path`; returns its description.

        Raises:
            BenchError: the attack is not learned.
        """
        fit, state = self.laid_out.fit, self.state()
        if fit is None or state is None:
            name = self.laid_out.entry.label
            raise BenchError(
                f"attack {name} is not learned and needs no file: use craft --attack {name} --source VICTIM"
            )
        about = self._about(fit)
        attack_file.write(path, about, state)
        return about

    def _about(self, fit: Step) -> AttackFile:
        entry, plan = self.laid_out.entry, self.laid_out.plan
        path, colon, name = entry.use.rpartition(":")
        # absolute, so that it is found from any folder
        use = f"{expanded(path).resolve()}:{name}" if colon and path.endswith(".py") else entry.use
        return AttackFile(
            use=use,
            code=fit.implementation["code"],
            options=dict(entry.options),
            threat=craft_threat(entry.threats[0]),
            seed=fit.config["seed"],
            source=self._label(),
            source_digest=self._weights(),
            data=plan.steps[fit.inputs["data"]].config["name"],
            image_size=plan.suite.image_size,
            key=fit.key,
            citation=self.laid_out.attack.citation,
        )

    def _label(self) -> str:
        return self.laid_out.victim.about

    def _weights(self) -> str:
        step = self.laid_out.victim
        return str(self.store.manifest(step.kind, step.key)["facts"]["weights"])


def ready_from_file(path: Path, source: Callable[[str], SingleAttack | None]) -> ReadyAttack:
    """A fitted attack from its file.

    Args:
        path: written by `SingleAttack.write`.
        source: function from the data set of the fit to the victim of the fit; it returns None for attacks that
            ignore their source while crafting.

    Raises:
        BenchError: not a file of a fitted attack, or the victim is not that of the fit.
    """
    about, state = attack_file.read(path)
    single = source(about.data)
    victim = single.victim(expected=about.source_digest) if single else None
    return ReadyAttack(path.name, about.attack(), about.threat, victim, state, about.seed)


def plan_single(base: Suite, request: Request, data_root: Path | None = None) -> SinglePlan:
    """Plan a request: data, victim, clean ranking and, for a learned attack, its fit.

    Sizes, counts, seed and labels are those of the suite `base`, so its stored steps are reused.

    Raises:
        BenchError: an unknown name or option, or a required data set is missing.
    """
    entry = _attack(base, request)
    victim, data = _victim(base, request)
    attack = registry.find("attack", entry.use).build(entry.options)
    ready = not victim.train_on
    if data is None and (isinstance(attack, LearnedAttack) or not ready):
        what = f"attack {request.attack} learns" if ready else f"victim {request.source} is trained"
        raise BenchError(f"{what}: name the data set with --data")
    # a plan needs a data set, even if victim and attack read none
    name = data or next(iter(base.datasets))
    alone = replace(
        base,
        datasets={name: base.datasets.get(name, {})},
        victims=(victim,),
        attacks=(entry,),
        relations=(),
        findings=(),
    )
    plan = make_plan(alone, data_root=data_root)
    impossible = next((cell.impossible for cell in plan.cells if cell.impossible), "")
    if impossible:
        raise BenchError(impossible)
    of_kind = {step.kind: step for step in plan.steps.values() if step.kind in ("victim", "fit")}
    goals = tuple(step.key for step in of_kind.values())
    return SinglePlan(replace(plan, wanted=goals), entry, attack, of_kind["victim"], of_kind.get("fit"))


def _attack(base: Suite, request: Request) -> AttackEntry:
    known = {entry.label: entry for entry in base.attacks}
    found = known.get(request.attack)
    default = found.threats[0] if found and len(found.threats) == 1 else ThreatModel()
    threat = replace(
        default,
        epsilon=default.epsilon if request.epsilon is None else request.epsilon,
        pixels=default.pixels if request.pixels is None else request.pixels,
    )
    if found is not None:
        return replace(found, options={**found.options, **request.options}, threats=(threat,), seeds=())
    plugin = registry.find("attack", request.attack)
    return AttackEntry(plugin.short_name, request.attack, dict(request.options), (threat,))


def _victim(base: Suite, request: Request) -> tuple[VictimEntry, str | None]:
    """(victim, data set): a victim that is trained gets this data set alone."""
    known = {entry.label: entry for entry in base.victims}
    label, at, trained_on = request.source.rpartition("@")
    if not at or label not in known:
        label, trained_on = request.source, ""
    if trained_on and request.data and trained_on != request.data:
        raise BenchError(f"--source {request.source} is trained on {trained_on}, but --data is {request.data}")
    data = request.data or trained_on or None
    if label in known:
        entry = known[label]
        trained = bool(entry.train_on)
    else:
        plugin = registry.find("victim", request.source)
        trained = plugin.makes(Recipe)
        entry = VictimEntry(plugin.short_name, request.source)
    # "?" stands for a missing data set, which plan_single reports
    return replace(entry, train_on=(data or "?",) if trained else (), roles=("source", "target")), data
