"""One attack on one victim, without a matrix. Its steps are those of suites, so the store is shared with them."""

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
from reid_attack_bench.execute.executor import execute, repair
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
    """What to attack, and with what.

    Attributes:
        attack: label in the suite, registered name or FILE.py:NAME.
        source: the same for the victim; "LABEL@DATASET" says its data set too.
        data: data set that victim and attack are trained on; None if neither is trained.
        options: of the attack, over those of the suite's label.
        epsilon, pixels: its budget; None for the suite's, else epsilon 8 and all pixels.
    """

    attack: str
    source: str
    data: str | None
    options: Mapping[str, Any]
    epsilon: int | None = None
    pixels: int | None = None


@dataclass(frozen=True)
class SinglePlan:
    """A plan for one attack on one victim; `fit` is None for an attack that does not learn."""

    plan: Plan
    entry: AttackEntry
    attack: Attack
    victim: Step
    fit: Step | None


@dataclass(frozen=True)
class SingleAttack:
    """One attack on one victim, its plan and the store of its steps."""

    laid_out: SinglePlan
    store: Store
    device: torch.device

    def perform(self, listener: Listener) -> None:
        """Run the steps that the store lacks.

        Raises:
            BenchError: a step failed; the message names it and says why.
        """
        repair(self.laid_out.plan, self.store)
        outcome = execute(self.laid_out.plan, self.store, self.device, listener)
        if outcome.causes:
            raise BenchError(outcome.causes[0])

    def state(self) -> State | None:
        """State of the fitted attack, on the CPU; None for an attack that is not fitted."""
        fit = self.laid_out.fit
        if fit is None:
            return None
        return load_file(self.store.open(fit.kind, fit.key) / "state.safetensors")

    def victim(self, expected: str = "") -> Victim:
        """The victim, ready to be attacked.

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
            BenchError: the attack is not a learned one.
        """
        fit, state = self.laid_out.fit, self.state()
        if fit is None or state is None:
            name = self.laid_out.entry.label
            raise BenchError(f"attack {name} learns nothing: give its name to craft --attack {name} --source VICTIM")
        about = self._about(fit)
        attack_file.write(path, about, state)
        return about

    def _about(self, fit: Step) -> AttackFile:
        entry, plan = self.laid_out.entry, self.laid_out.plan
        path, colon, name = entry.use.rpartition(":")
        # absolute, so that it is found from any folder
        use = f"{Path(path).expanduser().resolve()}:{name}" if colon and path.endswith(".py") else entry.use
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
        source: given the data set that the attack was fitted on, the victim that it was fitted against; None leaves
            it out, for attacks that ignore their source while crafting.

    Raises:
        BenchError: not the file of a fitted attack, or another victim.
    """
    about, state = attack_file.read(path)
    single = source(about.data)
    victim = single.victim(expected=about.source_digest) if single else None
    return ReadyAttack(path.name, about.attack(), about.threat, victim, state, about.seed)


def plan_single(base: Suite, request: Request, data_root: Path | None = None) -> SinglePlan:
    """Plan a request: data, victim, clean ranking and, for a learned attack, its fit.

    Sizes, counts, seed and labels are those of the suite `base`, so its stored steps are used.

    Raises:
        BenchError: an unknown name or option, or a data set that is needed and not named.
    """
    entry = _attack(base, request)
    victim, data = _victim(base, request)
    attack = registry.find("attack", entry.use).build(entry.options)
    ready = not victim.train_on
    if data is None and (isinstance(attack, LearnedAttack) or not ready):
        what = f"attack {request.attack} learns" if ready else f"victim {request.source} is trained"
        raise BenchError(f"{what}: name the data set with --data")
    # a ready victim and an attack that does not learn read no data, but a plan has some
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
    """The victim, trained on one data set where it is trained at all, and that data set."""
    known = {entry.label: entry for entry in base.victims}
    label, at, home = request.source.rpartition("@")
    if not at or label not in known:
        label, home = request.source, ""
    if home and request.data and home != request.data:
        raise BenchError(f"--source {request.source} is trained on {home}, and --data says {request.data}")
    data = request.data or home or None
    if label in known:
        entry = known[label]
        trained = bool(entry.train_on)
    else:
        plugin = registry.find("victim", request.source)
        trained = plugin.makes(Recipe)
        entry = VictimEntry(plugin.short_name, request.source)
    # without a data set the name stands for one: plan_single says that it is missing
    return replace(entry, train_on=(data or "?",) if trained else (), roles=("source", "target")), data
