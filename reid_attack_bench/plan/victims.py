"""Planned victims, and the relation between a source and a target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from reid_attack_bench import registry
from reid_attack_bench.contracts import Defence, LearnedDefence, PublishedValues, Recipe, Victim, bound
from reid_attack_bench.errors import BenchError, MissingWeightsError, joined
from reid_attack_bench.files import plain
from reid_attack_bench.steps.data import has_training_split
from reid_attack_bench.steps.step import Configured, Step
from reid_attack_bench.steps.victim import defended_step, ready_step, trained_step
from reid_attack_bench.suites.suite import Suite, VictimEntry

_Made = TypeVar("_Made", Victim, Recipe, Defence)

PERMISSION = "trust_code"
"""Option of victims that is no part of a key: it says whether a file may be read, not what is in it."""


@dataclass(frozen=True)
class PlannedVictim:
    """One model of a plan.

    Attributes:
        model: label of its entry in the suite.
        dataset: data set that the bench trains it on; empty for a model that comes trained.
        home: data set that it was trained on by whomever; empty if unknown.
        step: makes it.
        roles: as in VictimEntry.
        expected_rank1: clean Rank-1 in % below which it counts as failed at home.
        differentiable, randomised, classifies: as in Victim, as declared.
        own_comparison, differentiable_comparison: as in Victim, as declared.
        one_class: its logits have fewer than two classes, so it counts as one that has none.
        purifies: an adaptive attack can get past what blocks its gradient, since that is in `purify`.
        defended: it has, or may have, a defence that an adaptive attack could know. False only for what a recipe makes
            that says so: a model that comes trained may hide one.
        published: data set → values that were published for it without attack.
        defends: the victim that it defends; None for one that is no defence.
        architecture: as in Victim.
    """

    model: str
    dataset: str
    home: str
    step: Step
    roles: tuple[str, ...]
    expected_rank1: float
    differentiable: bool
    randomised: bool = False
    purifies: bool = False
    classifies: bool = True
    own_comparison: bool = False
    differentiable_comparison: bool = True
    one_class: bool = False
    defended: bool = True
    published: Mapping[str, PublishedValues] = field(default_factory=dict)
    defends: PlannedVictim | None = None
    architecture: str = ""

    @property
    def label(self) -> str:
        """Its name in tables."""
        return label_of(self.model, self.dataset)

    @property
    def is_source(self) -> bool:
        return "source" in self.roles or "white-box" in self.roles

    @property
    def is_target(self) -> bool:
        return "target" in self.roles


def label_of(model: str, dataset: str) -> str:
    """Name of a model in tables: MODEL, or MODEL@DATASET for one that the bench trains."""
    return f"{model}@{dataset}" if dataset else model


def plan_victims(suite: Suite, data: Mapping[str, Step], live: Mapping[str, registry.Plugin]) -> list[PlannedVictim]:
    """Every model of a suite, in order.

    Args:
        data: name → data step.
        live: label → victim in memory, used in place of the plug-in that its entry names.

    Raises:
        BenchError: an unknown victim or option, or an entry whose train_on or defends does not fit its plug-in.
        MissingWeightsError: files of zoo models are missing; names all of them.
    """
    victims: list[PlannedVictim] = []
    for entry, plugin, made in _built(suite, live):
        if isinstance(made, Victim):
            victims.append(_ready(entry, _configured(plugin, entry, made)))
        elif isinstance(made, Defence):
            victims += _defended(entry, _configured(plugin, entry, made), data, victims, suite.seed)
        else:
            victims += _trained(entry, _configured(plugin, entry, made), data, suite.seed)
    return victims


def _built(suite: Suite, live: Mapping[str, registry.Plugin]) -> list[tuple[VictimEntry, registry.Plugin, Any]]:
    """What the plug-in of each victim makes. Missing weights of several are one error."""
    missing: list[MissingWeightsError] = []
    found = list(_each_built(suite, live, missing))
    if missing:
        raise joined(missing)
    return found


def _each_built(
    suite: Suite, live: Mapping[str, registry.Plugin], missing: list[MissingWeightsError]
) -> Iterator[tuple[VictimEntry, registry.Plugin, Any]]:
    """See `_built`; what lacks weights is added to `missing`."""
    for entry in suite.victims:
        plugin = live.get(entry.label) or registry.find("victim", entry.use)
        try:
            yield entry, plugin, plugin.build(entry.options)
        except MissingWeightsError as error:
            missing.append(error)


def missing_weights(suite: Suite, live: Mapping[str, registry.Plugin] | None = None) -> list[MissingWeightsError]:
    """Weights that the victims of a suite lack, one error for each victim.

    Raises:
        BenchError: another mistake in a victim.
    """
    missing: list[MissingWeightsError] = []
    for _ in _each_built(suite, live or {}, missing):
        pass
    return missing


def _configured(plugin: registry.Plugin, entry: VictimEntry, made: _Made) -> Configured[_Made]:
    settings = {name: value for name, value in entry.options.items() if name != PERMISSION}
    options = {**plain(settings), **plain(registry.configuration(made))}
    return Configured(plugin.key, plugin.code, options, made)


def _ready(entry: VictimEntry, use: Configured[Victim]) -> PlannedVictim:
    if entry.train_on:
        raise BenchError(f"victim {entry.label} is already trained (it has no fit): remove train_on")
    victim = use.plugin
    one_class = _has_one_class(victim)
    for name, values in victim.published.items():
        if not isinstance(values, PublishedValues):
            raise BenchError(
                f"victim {entry.label}: published[{name!r}] must be PublishedValues(rank1=…, mAP=…), not {values!r}"
            )
    return PlannedVictim(
        entry.label,
        "",
        victim.trained_on,
        ready_step(entry.label, use),
        entry.roles,
        entry.expected_rank1,
        victim.differentiable,
        randomised=victim.randomised,
        purifies=type(victim).purify is not Victim.purify,
        classifies=victim.classifies and not one_class,
        own_comparison=victim.own_comparison,
        differentiable_comparison=victim.differentiable_comparison,
        one_class=one_class,
        published=victim.published,
        architecture=victim.architecture,
    )


def _has_one_class(victim: Victim) -> bool:
    """Whether its logits are over fewer than two classes, so attacks cannot change the class of an image."""
    if not victim.classifies:
        return False
    try:
        with torch.no_grad():
            scores = bound(victim.eval()).logits(torch.full((1, 3, *victim.input_size), 0.5))
    except Exception:  # what is wrong with it is said when it is examined
        return False
    return isinstance(scores, torch.Tensor) and scores.ndim == 2 and scores.shape[1] < 2


def _trained(
    entry: VictimEntry, use: Configured[Recipe], data: Mapping[str, Step], seed: int
) -> Iterable[PlannedVictim]:
    """One victim for each data set that `entry` trains on."""
    if entry.defends:
        raise BenchError(f"victim {entry.label} defends {entry.defends}, but {entry.use} has no defend")
    if not entry.train_on:
        raise BenchError(f"victim {entry.label} must be trained: name its data sets in train_on")
    for name in entry.train_on:
        _check_training_split(label_of(entry.label, name), data[name])
        step = trained_step(label_of(entry.label, name), use, data[name], seed)
        yield PlannedVictim(
            entry.label,
            name,
            name,
            step,
            entry.roles,
            entry.expected_rank1,
            use.plugin.differentiable,
            randomised=use.plugin.randomised,
            own_comparison=use.plugin.own_comparison,
            differentiable_comparison=use.plugin.differentiable_comparison,
            defended=use.plugin.defended,
        )


def _defended(
    entry: VictimEntry,
    use: Configured[Defence],
    data: Mapping[str, Step],
    others: list[PlannedVictim],
    seed: int,
) -> list[PlannedVictim]:
    """One defended victim for each model of the victim that `entry` defends."""
    inner = [other for other in others if other.model == entry.defends]
    if not inner:
        above = ", ".join(dict.fromkeys(other.model for other in others)) or "none"
        raise BenchError(
            f"victim {entry.label} is a defence: say which victim above it in the suite it defends, with defends "
            f"(there: {above})"
        )
    defence, made = use.plugin, []
    for other in inner:
        label = label_of(entry.label, other.dataset)
        if isinstance(defence, LearnedDefence) and other.home not in data:
            raise BenchError(
                f"victim {label} must be trained, but the training data set of {other.label} is unknown: set "
                "trained_on to one of the suite's"
            )
        if isinstance(defence, LearnedDefence):
            _check_training_split(label, data[other.home])
        differentiable = other.differentiable and defence.differentiable
        made.append(
            PlannedVictim(
                entry.label,
                other.dataset,
                other.home,
                defended_step(label, use, other.step, data.get(other.home), seed),
                entry.roles,
                entry.expected_rank1,
                differentiable,
                randomised=other.randomised or defence.randomised,
                purifies=defence.purifies or (other.purifies and not differentiable),
                classifies=other.classifies,
                own_comparison=other.own_comparison,
                differentiable_comparison=other.differentiable_comparison,
                defends=other,
            )
        )
    return made


def _check_training_split(victim: str, data: Step) -> None:
    if not has_training_split(data):
        raise BenchError(
            f"victim {victim} cannot be trained: data set {data.about} has no training split, so it can only be a "
            "target; name other data sets in train_on"
        )


def relation_of(source: PlannedVictim, target: PlannedVictim, dataset: str, known: Iterable[str]) -> str:
    """One of suite.RELATIONS; empty if `target` was trained on another of the `known` data sets than `dataset`.

    A victim whose training data set is unknown is at home on every data set.
    """
    if target.home in known and target.home != dataset:
        return ""
    if source.label == target.label:
        return "white-box"
    elsewhere = bool(source.home and target.home and source.home != target.home)
    alike = bool(source.architecture) and source.architecture == target.architecture
    if source.model == target.model or (alike and elsewhere):
        return "cross-dataset"
    return "cross-both" if elsewhere else "cross-model"
