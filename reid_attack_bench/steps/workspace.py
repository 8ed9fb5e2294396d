"""Workspace of a run: inputs of steps, loaded once and cached."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from reid_attack_bench.adversary.access import Granted
from reid_attack_bench.adversary.adaptive import adapt
from reid_attack_bench.adversary.cost import Cost, Metered
from reid_attack_bench.adversary.result_list import ListSeen
from reid_attack_bench.contracts import Defence, Ensemble, FitContext, Recipe, State, TrainingData, Victim, bound
from reid_attack_bench.contracts.bound import Abroad
from reid_attack_bench.data.split import Split
from reid_attack_bench.errors import VictimError
from reid_attack_bench.files import replace_file
from reid_attack_bench.steps.artefacts import read_splits
from reid_attack_bench.steps.examine import examine
from reid_attack_bench.steps.loan import on_loan
from reid_attack_bench.steps.passes import MixedPrecision, Note, compiled
from reid_attack_bench.steps.step import Progress, Step, source_keys

VICTIMS_IN_MEMORY = 24
"""Victims that a process keeps on its device; the one loaded first is dropped."""


@dataclass
class Workspace:
    """Inputs of steps, loaded once and cached for the run.

    Attributes:
        obtain: key → folder of the step's result, checked, and rebuilt if corrupt.
        steps: key → step.
        unfinished: key → file for the intermediate state of the step.
        note: receives messages for the user.
    """

    obtain: Callable[[str], Path]
    steps: Mapping[str, Step]
    device: torch.device
    unfinished: Callable[[str], Path]
    note: Note = lambda text: None
    _splits: dict[str, dict[str, Split]] = field(default_factory=dict)
    _victims: dict[str, Victim] = field(default_factory=dict)
    _compiled: dict[str, Victim] = field(default_factory=dict)
    _randomised: dict[str, bool] = field(default_factory=dict)

    def splits(self, key: str) -> dict[str, Split]:
        """The decoded data of one data step, memory-mapped."""
        if key not in self._splits:
            self._splits[key] = read_splits(self.obtain(key))
        return self._splits[key]

    def training_data(self, key: str, victim: Victim | None = None) -> TrainingData:
        """The training split of one data step, for an attack on `victim` or a defence of it."""
        train = self.splits(key)["train"].lent()
        labels = np.unique(train.identities, return_inverse=True)[1].astype(np.int64)
        return TrainingData(self.steps[key].about, train.images_for(victim), labels, train.cameras)

    def victim(self, key: str) -> Victim:
        """The victim of one victim step: on the device, in eval mode, frozen."""
        if key not in self._victims:
            step = self.steps[key]
            state = None
            if not isinstance(step.plugin, Victim):
                path = self.obtain(key) / "weights.safetensors"
                state = load_file(path) if path.is_file() else None
            victim = self.built(step, state)
            while len(self._victims) >= VICTIMS_IN_MEMORY:
                self._victims.pop(next(iter(self._victims)))
            self._victims[key] = victim.to(self.device).eval().requires_grad_(False)
        return self._victims[key]

    def built(self, step: Step, state: State | None) -> Victim:
        """The victim of a victim step: ready as it is, or made from `state` by its recipe or defence; `bound`."""
        if isinstance(step.plugin, Victim):
            return bound(step.plugin)
        if isinstance(step.plugin, Defence):
            inner = self.victim(step.inputs["victim"])
            with on_loan(inner, f"defence {step.about}", self.steps[step.inputs["victim"]].about):
                victim = step.plugin.defend(inner, state)
            victim.trained_on = victim.trained_on or inner.trained_on
            return bound(victim)
        recipe: Recipe = step.plugin
        assert state is not None
        victim = recipe.load(state)
        if victim.own_comparison != recipe.own_comparison:
            raise VictimError(
                f"victim {step.about}: own_comparison is {victim.own_comparison} on the victim, and "
                f"{recipe.own_comparison} on its recipe: declare it on the recipe, by which attacks are planned"
            )
        victim.trained_on = self.steps[step.inputs["data"]].about
        return bound(victim)

    def passes(self, key: str, step: Step, *, as_is: bool = False) -> Victim:
        """The victim of one victim step on the data of `step`, in the precision and compilation that it asks for.

        Args:
            as_is: never compiled.
        """
        victim, implementation = self.victim(key), step.implementation
        if implementation.get("compile") and not as_is:
            if key not in self._compiled:
                self._compiled[key] = compiled(victim, self.steps[key].about, self.device, self.note)
            victim = self._compiled[key]
        if victim.uses_cameras and victim.trained_on not in ("", step.parents["data"].about):
            victim = Abroad(victim)
        return MixedPrecision(victim) if implementation.get("precision") == "bfloat16" else victim

    def randomised(self, key: str) -> bool:
        """Whether two calls of the victim of one victim step may differ, as declared or as found."""
        if key not in self._randomised:
            card = json.loads((self.obtain(key) / "card.json").read_text(encoding="utf-8"))
            self._randomised[key] = bool(card["randomised"] or card.get("found_randomised", False))
        return self._randomised[key]

    def source(self, step: Step, cost: Cost, gallery: Callable[[Victim], Tensor] | None = None) -> Victim:
        """The source of a fit or craft step as its attack may see it, an Ensemble if it has several.

        `gallery` embeds the gallery that the attack sees, G×D; None if it sees none.

        Its passes are added to `cost`. It is adapted if the config asks for an adaptive attack. An adapted source is
        never compiled: its gradients are redefined on every call.
        """
        members = [self._source(step, key, cost, gallery) for key in source_keys(step)]
        return members[0] if len(members) == 1 else Ensemble(members)

    def _source(self, step: Step, key: str, cost: Cost, gallery: Callable[[Victim], Tensor] | None) -> Victim:
        samples = step.config.get("adaptive") if "gradients" in step.plugin.needs else 0
        victim = self.passes(key, step, as_is=bool(samples))
        seen = self._adapted(key, victim, samples, cost, gallery) if samples else Metered(victim, cost)
        return Granted(seen, step.plugin.needs, str(step.config["attack"]))

    def _adapted(
        self, key: str, victim: Victim, samples: int, cost: Cost, gallery: Callable[[Victim], Tensor] | None
    ) -> Victim:
        randomised, metered = self.randomised(key), Metered(victim, cost)
        examine(adapt(victim, samples, randomised=randomised), self.device)
        if gallery is None or not victim.list_length:
            return adapt(metered, samples, randomised=randomised)
        embedded = functools.cache(functools.partial(gallery, victim))  # by the defender, at no cost of the attack
        return adapt(ListSeen(metered, embedded), samples, randomised=randomised)


@dataclass(frozen=True)
class _Checkpoint:
    """contracts.Checkpoint in one file."""

    path: Path

    def load(self) -> State | None:
        try:
            return load_file(self.path)
        except (OSError, SafetensorError):
            return None  # missing, or cut short by a full disk: the fit starts from the beginning

    def save(self, state: State) -> None:
        replace_file(self.path, save(state))


def fit_context(step: Step, workspace: Workspace, progress: Progress) -> FitContext:
    checkpoint = _Checkpoint(workspace.unfinished(step.key))
    return FitContext(workspace.device, torch.Generator().manual_seed(step.seed), progress, checkpoint)
