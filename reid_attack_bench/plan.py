"""From a suite to a plan: the DAG of content-addressed steps, and the cells of the matrix that they fill."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from reid_attack_bench import adaptive, registry
from reid_attack_bench.contracts import ThreatModel, Victim
from reid_attack_bench.data import datasets
from reid_attack_bench.data.datasets import DataSource
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.metrics.images import find_lpips_weights
from reid_attack_bench.store import digest_of, file_digest
from reid_attack_bench.suite import AttackEntry, Suite, VictimEntry

STEP_VERSIONS = {
    "data": 1,  # decode or render every image once
    "victim": 2,  # train a victim, or load and examine a ready one
    "clean": 1,  # embeddings of query and gallery
    "clean-rank": 2,  # ranking without an attack
    "fit": 2,  # train an attack that learns
    "craft": 2,  # adversarial images, 8 bits, within budget
    "measure": 2,  # how visible they are
    "features": 1,  # their embeddings on one target
    "rank": 2,  # ranking under attack
}
"""Version of each step's code: raise it when a step would give another result for the same inputs."""


@dataclass(frozen=True)
class Step:
    """One unit of work.

    Attributes:
        kind: one of STEP_VERSIONS.
        label: for people.
        config: what is asked for; plain values. With the parents it decides the key and the seed.
        implementation: what else decides the result: versions of code, precision, batch size; plain values. It decides
            the key alone, so that the next version of an attack draws the same random numbers.
        parents: role → step whose result this one reads.
        after: steps that must have succeeded first though nothing is read from them (the clean Rank-1 gate).
        subject: the live object that does the work (data source, recipe, victim, attack); stands in config by name.
        work: estimate, in forward passes of one image.
    """

    kind: str
    label: str
    config: Mapping[str, Any]
    implementation: Mapping[str, Any] = field(default_factory=dict)
    parents: Mapping[str, Step] = field(default_factory=dict, repr=False)
    after: tuple[str, ...] = ()
    subject: Any = None
    work: float = 0.0

    @functools.cached_property
    def inputs(self) -> dict[str, str]:
        """Role → key of the step that makes it."""
        return {role: step.key for role, step in self.parents.items()}

    @functools.cached_property
    def key(self) -> str:
        """Address of the result in the store: a digest of everything that decides it."""
        settings = {**self.config, **self.implementation}
        return digest_of([self.kind, STEP_VERSIONS[self.kind], settings, self.inputs])

    @functools.cached_property
    def meaning(self) -> str:
        """Digest of what is asked for, however it is computed. Steps of one key have one meaning."""
        return digest_of([self.kind, self.config, {role: step.meaning for role, step in self.parents.items()}])

    @property
    def seed(self) -> int:
        """Seed of every random number that the step draws, 60 bits of its meaning."""
        return int(self.meaning[:15], 16)


@dataclass(frozen=True)
class CleanRow:
    """One victim on one data set without an attack, and the steps that say how it does."""

    victim: str
    dataset: str
    synthetic: bool
    home: bool
    victim_key: str
    features_key: str
    rank_key: str


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix, and the steps that fill it.

    `relation` is one of suite.RELATIONS, or empty where the target is judged on data it was not trained on.
    `impossible` says why it can have no steps. `family`, `steps` and `adaptive` are what the audit asks of the attack:
    what it climbs (attacks with the same are compared), in how many steps, and AttackEntry.adaptive.
    """

    attack: str
    threat: ThreatModel
    seed: int
    access: str
    needs: tuple[str, ...]
    source: str
    target: str
    relation: str
    dataset: str
    synthetic: bool
    clean_rank_key: str
    data_key: str
    family: str = ""
    steps: int = 0
    adaptive: int = 0
    craft_key: str = ""
    measure_key: str = ""
    features_key: str = ""
    rank_key: str = ""
    impossible: str = ""


@dataclass(frozen=True)
class Plan:
    """Steps in an order that satisfies their inputs, and what they are for.

    `wanted` are the keys of what somebody is after who wants no report.
    """

    suite: Suite
    steps: Mapping[str, Step]
    clean: tuple[CleanRow, ...]
    cells: tuple[Cell, ...]
    wanted: tuple[str, ...] = ()

    @property
    def goals(self) -> list[str]:
        """Keys that the report reads, or that are wanted; everything else exists to make these."""
        if self.wanted:
            return list(self.wanted)
        wanted = [row.rank_key for row in self.clean]
        for cell in self.cells:
            wanted += [key for key in (cell.craft_key, cell.measure_key, cell.rank_key) if key]
        return list(dict.fromkeys(wanted))


@dataclass(frozen=True)
class _Subject:
    """A victim in the plan: one model, with what planning must know of it."""

    label: str
    model: str
    home: str
    step: Step
    roles: tuple[str, ...]
    differentiable: bool
    purifies: bool = False
    classifies: bool = True


def _is_source(victim: _Subject) -> bool:
    return "source" in victim.roles or "white-box" in victim.roles


def _relation(source: _Subject, target: _Subject, dataset: str, known: Iterable[str]) -> str:
    """One of suite.RELATIONS, or empty where `target` has its home in another of the `known` data sets.

    A victim that does not say what it was trained on is at home everywhere.
    """
    if target.home in known and target.home != dataset:
        return ""
    if source.label == target.label:
        return "white-box"
    if source.model == target.model:
        return "cross-dataset"
    return "cross-both" if source.home and target.home and source.home != target.home else "cross-model"


def make_plan(
    suite: Suite,
    *,
    data_root: Path | None = None,
    only: Mapping[str, Iterable[str]] | None = None,
    remember: Path | None = None,
) -> Plan:
    """Lay out every step of a suite.

    Args:
        suite: what to cross.
        data_root: folder of the real data sets.
        only: restrict cells, e.g. {"attack": ["pgd"], "source": [...], "target": [...], "dataset": [...]}.
        remember: where what real data sets hold is kept, so that it is not read again: see data.real.content_of.

    Raises:
        BenchError: an unknown name or setting anywhere in the suite.
    """
    return _Planner(suite, data_root, remember).plan({k: list(v) for k, v in (only or {}).items()})


class _Planner:
    def __init__(self, suite: Suite, data_root: Path | None, remember: Path | None) -> None:
        self.suite = suite
        self.data_root, self.remember = data_root, remember
        self.steps: dict[str, Step] = {}
        # of the default nothing is said, so that what was stored before there was a choice is found
        self.passes: dict[str, Any] = {} if suite.precision == "float32" else {"precision": suite.precision}
        self.passes |= {"compile": True} if suite.compile else {}
        weights = find_lpips_weights()
        self.lpips = file_digest(weights) if weights else None

    def plan(self, only: dict[str, list[str]]) -> Plan:
        suite = self.suite
        sources = {
            name: datasets.source(
                name,
                options,
                size=suite.image_size,
                seed=suite.seed,
                data_root=self.data_root,
                remember=self.remember,
            )
            for name, options in suite.datasets.items()
        }
        data = {name: self._data(source) for name, source in sources.items()}
        victims: list[_Subject] = []
        for each in suite.victims:
            victims += self._victims(each, data, sources, victims)
        attacks = [(entry, *self._attack(entry)) for entry in suite.attacks]
        _check_only(
            only,
            {
                "attack": [entry.label for entry in suite.attacks],
                "source": [v.label for v in victims if _is_source(v)],
                "target": [v.label for v in victims if "target" in v.roles],
                "dataset": list(sources),
            },
        )

        def wanted(field_name: str, value: str) -> bool:
            return field_name not in only or value in only[field_name]

        clean: dict[tuple[str, str], CleanRow] = {}

        def clean_row(victim: _Subject, name: str) -> CleanRow:
            if (victim.label, name) not in clean:
                clean[victim.label, name] = self._clean(victim, sources[name], data[name], gate(victim, name))
            return clean[victim.label, name]

        def gate(victim: _Subject, name: str | None = None) -> tuple[str, ...]:
            """The clean ranking at home: where it fails, the victim is neither source nor target."""
            at_home = victim.home not in data or victim.home == name
            return () if at_home else (clean_row(victim, victim.home).rank_key,)

        targets = [v for v in victims if "target" in v.roles and wanted("target", v.label)]
        chosen = [name for name in sources if wanted("dataset", name)]
        for victim in targets:  # clean first: a victim that did not learn stops its own cells early
            for name in chosen:
                if not suite.relations or victim.home == name or victim.home not in data:
                    clean_row(victim, name)
        cells: list[Cell] = []
        for entry, plugin, attack in attacks:
            if not wanted("attack", entry.label):
                continue
            for threat, seed in itertools.product(entry.threats, entry.seeds or (suite.seed,)):
                for victim in victims:
                    if not _is_source(victim) or not wanted("source", victim.label):
                        continue
                    for name in chosen:
                        everyone = threat.access == "transfer" and "source" in victim.roles
                        meets = [t for t in targets if everyone or t.label == victim.label]
                        if suite.relations:
                            meets = [t for t in meets if _relation(victim, t, name, data) in suite.relations]
                        if meets:
                            rows = {t.label: clean_row(t, name) for t in meets}
                            cells += self._cells(
                                entry,
                                plugin,
                                attack,
                                threat,
                                seed,
                                victim,
                                gate(victim),
                                sources[name],
                                data,
                                meets,
                                rows,
                            )
        if not victims:
            raise BenchError(f"suite {suite.name} has no victims of its own: put yours in it with evaluate --victim")
        if not cells:
            raise BenchError("nothing to run: no attack meets a source and a target with these settings")
        return Plan(suite, self.steps, tuple(clean.values()), tuple(cells))

    def _add(self, step: Step) -> Step:
        return self.steps.setdefault(step.key, step)

    def _data(self, source: DataSource) -> Step:
        label = f"data {source.name}"
        config = {"name": source.name, **source.identity}
        return self._add(Step("data", label, config, subject=source, work=source.image_count / 4))

    def _victims(
        self,
        entry: VictimEntry,
        data: Mapping[str, Step],
        sources: Mapping[str, DataSource],
        others: list[_Subject],
    ) -> list[_Subject]:
        plugin = registry.find("victim", entry.use)
        subject = plugin.build(entry.options)
        options = {**_plain(dict(entry.options)), **_plain(registry.configuration(subject))}
        config: dict[str, Any] = {"victim": plugin.key, "options": options}
        code = {"code": plugin.code}
        if isinstance(subject, Victim):
            if entry.train_on:
                raise BenchError(f"victim {entry.label} comes trained (it has no fit): remove train_on")
            config["weights"] = weights_digest(subject)
            step = self._add(Step("victim", f"victim {entry.label}", config, code, subject=subject, work=10))
            home = subject.trained_on
            purifies = type(subject).purify is not Victim.purify
            classifies = type(subject).logits is not Victim.logits and getattr(subject, "classifies", True)
            return [
                _Subject(
                    entry.label, entry.label, home, step, entry.roles, subject.differentiable, purifies, classifies
                )
            ]
        if hasattr(subject, "defend"):
            return self._defended(entry, subject, config, code, data, others)
        if not (hasattr(subject, "fit") and hasattr(subject, "load")):
            raise BenchError(
                f"victim {entry.use} is a {type(subject).__name__}: it must be a reid_attack_bench.contracts.Victim, "
                "or have fit and load, or defend"
            )
        if entry.defends:
            raise BenchError(f"victim {entry.label} defends {entry.defends}, but {entry.use} has no defend")
        if not entry.train_on:
            raise BenchError(f"victim {entry.label} must be trained: name its data sets in train_on")
        made = []
        for name in entry.train_on:
            label = f"{entry.label}@{name}"
            passes = 3.0 * getattr(subject, "epochs", 1) * sources[name].image_count * 0.6
            config_here = {**config, "seed": self.suite.seed}
            step = self._add(
                Step("victim", f"train {label}", config_here, code, {"data": data[name]}, subject=subject, work=passes)
            )
            differentiable = getattr(subject, "differentiable", True)
            made.append(_Subject(label, entry.label, name, step, entry.roles, differentiable))
        return made

    def _defended(
        self,
        entry: VictimEntry,
        subject: Any,
        config: dict[str, Any],
        code: dict[str, Any],
        data: Mapping[str, Step],
        others: list[_Subject],
    ) -> list[_Subject]:
        """One defended victim for each model of the victim that `entry` defends."""
        below = [other for other in others if other.model == entry.defends]
        if not below:
            above = ", ".join(dict.fromkeys(other.model for other in others)) or "none"
            raise BenchError(
                f"victim {entry.label} is a defence: say which victim above it in the suite it defends, with defends "
                f"(there: {above})"
            )
        made = []
        for other in below:
            label = entry.label + other.label[len(other.model) :]
            parents, work, own = {"victim": other.step}, 10.0, config
            if hasattr(subject, "fit"):
                if other.home not in data:
                    raise BenchError(
                        f"victim {label} must be trained, and {other.label} does not say on which data set"
                    )
                parents["data"] = data[other.home]
                work, own = float(getattr(subject, "fit_work", 10_000.0)), {**config, "seed": self.suite.seed}
            kind = "train" if hasattr(subject, "fit") else "victim"
            step = self._add(Step("victim", f"{kind} {label}", own, code, parents, subject=subject, work=work))
            differentiable = other.differentiable and getattr(subject, "differentiable", True)
            purifies = getattr(subject, "purifies", False) or (other.purifies and not differentiable)
            made.append(
                _Subject(label, entry.label, other.home, step, entry.roles, differentiable, purifies, other.classifies)
            )
        return made

    def _attack(self, entry: AttackEntry) -> tuple[registry.Plugin, Any]:
        plugin = registry.find("attack", entry.use)
        attack = plugin.build(entry.options)
        if not (hasattr(attack, "craft") and hasattr(attack, "needs")):
            raise BenchError(f"attack {entry.use} is a {type(attack).__name__}: it must have needs and craft")
        for threat in entry.threats:
            if threat.access == "query" and {"gradients", "logits"} & set(attack.needs):
                raise BenchError(
                    f"attack {entry.label} needs {' and '.join(sorted(attack.needs))}, not query access only"
                )
        return plugin, attack

    def _clean(self, victim: _Subject, source: DataSource, data: Step, gate: tuple[str, ...]) -> CleanRow:
        tested = source.image_count * 0.4
        label = f"{victim.label} on {source.name}"
        features = self._add(
            Step(
                "clean",
                f"clean features {label}",
                {},
                self.passes,
                {"victim": victim.step, "data": data},
                after=gate,
                work=tested,
            )
        )
        expected = self._expected(victim) if victim.home == source.name else 0.0
        rank = self._add(
            Step(
                "clean-rank",
                f"clean rank {label}",
                {"protocol": source.protocol, "expected_rank1": expected},
                parents={"features": features, "data": data, "victim": victim.step},
                work=1,
            )
        )
        home = victim.home == source.name
        return CleanRow(victim.label, source.name, source.synthetic, home, victim.step.key, features.key, rank.key)

    def _expected(self, victim: _Subject) -> float:
        for entry in self.suite.victims:
            if victim.label in (entry.label, f"{entry.label}@{victim.home}"):
                return entry.expected_rank1
        return 0.0

    def _cells(
        self,
        entry: AttackEntry,
        plugin: registry.Plugin,
        attack: Any,
        threat: ThreatModel,
        seed: int,
        source: _Subject,
        gate: tuple[str, ...],
        on: DataSource,
        data: Mapping[str, Step],
        targets: list[_Subject],
        clean: Mapping[str, CleanRow],
    ) -> list[Cell]:
        needs = tuple(sorted(attack.needs))
        budget = f"{entry.label} {threat.epsilon}/255" + (f" k{threat.pixels}" if threat.pixels else "")
        if entry.seeds:
            budget += f" seed {seed}"

        def cell(target: _Subject, **keys: str) -> Cell:
            access = "white-box" if target.label == source.label else "transfer"
            return Cell(
                entry.label, threat, seed, "query" if threat.access == "query" else access, needs, source.label,
                target.label, _relation(source, target, on.name, data), on.name, on.synthetic,
                clean[target.label].rank_key, data[on.name].key, getattr(attack, "family", ""),
                1 if hasattr(attack, "fit") else int(getattr(attack, "steps", 1)), entry.adaptive, **keys,
            )  # fmt: skip

        reachable = source.differentiable or (source.purifies and entry.adaptive)
        if "gradients" in needs and not reachable:
            reason = f"{source.label} gives no gradients, so it can only be a target of {entry.label}"
            if source.purifies:
                reason += ", unless that is adaptive"
            return [cell(target, impossible=reason) for target in targets]
        if "logits" in needs and not source.classifies:
            reason = f"{source.label} has no logits, so it can only be a target of {entry.label}"
            return [cell(target, impossible=reason) for target in targets]
        config = {
            "attack": plugin.key,
            "options": {**_plain(dict(entry.options)), **_plain(registry.configuration(attack))},
            "threat": _threat_values(craft_threat(threat)),
            "seed": seed,
        }
        code: dict[str, Any] = {"code": plugin.code}
        if entry.adaptive and needs:
            config |= {"adaptive": entry.adaptive}
            code |= {"adaptation": adaptive.VERSION}
        images = on.image_count * {"query": 0.07, "gallery": 0.33, "both": 0.4}[threat.perturbs]
        parents = {"data": data[on.name]}
        # an attack that asks nothing of a source is crafted once for all of them
        if needs or threat.access == "query":
            parents["source"] = source.step
        if hasattr(attack, "fit"):
            # A victim that does not say what it was trained on is attacked with what the attacker has at hand.
            home = source.home if source.home in data else next(iter(data))
            fit = self._add(
                Step(
                    "fit",
                    f"fit {budget} against {source.label}",
                    {**config, "threat": _threat_values(fit_threat(threat))},
                    code,
                    {"source": source.step, "data": data[home]},
                    after=gate,
                    subject=attack,
                    work=float(getattr(attack, "fit_work", 1000.0)),
                )
            )
            parents["fit"] = fit
        craft = self._add(
            Step(
                "craft",
                f"craft {budget} on {source.label}, {on.name}" if needs else f"craft {budget}, {on.name}",
                config,
                {**code, "batch_size": self.suite.batch_size, **(self.passes if needs else {})},
                parents,
                after=gate if needs else (),
                subject=attack,
                work=images * float(getattr(attack, "craft_work", 3.0)),
            )
        )
        measure = self._add(
            Step(
                "measure",
                f"measure {craft.label.removeprefix('craft ')}",
                {},
                {"lpips": self.lpips},
                {"craft": craft, "data": data[on.name]},
                work=images,
            )
        )
        made = []
        for target in targets:
            row = clean[target.label]
            label = f"{craft.label.removeprefix('craft ')} → {target.label}"
            features = self._add(
                Step(
                    "features",
                    f"features {label}",
                    {},
                    self.passes,
                    {"craft": craft, "victim": target.step, "data": data[on.name]},
                    after=(row.rank_key,),
                    work=images,
                )
            )
            rank = self._add(
                Step(
                    "rank",
                    f"rank {label}",
                    {"protocol": on.protocol},
                    parents={
                        "features": features,
                        "clean": self.steps[row.features_key],
                        "data": data[on.name],
                        "victim": target.step,
                    },
                    work=1,
                )
            )
            made.append(
                cell(target, craft_key=craft.key, measure_key=measure.key, features_key=features.key, rank_key=rank.key)
            )
        return made


def weights_digest(victim: Victim) -> str:
    """sha256 over the names, shapes and bytes of a victim's parameters and buffers, as 32 hexadecimal digits."""
    total = hashlib.sha256()
    for name, value in sorted(victim.state_dict().items()):
        tensor = value.detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return total.hexdigest()[:32]


def fit_threat(threat: ThreatModel) -> ThreatModel:
    """The part of a threat that an attack may see while it learns: its budget, so that all with one budget share it."""
    return ThreatModel(epsilon=threat.epsilon, pixels=threat.pixels)


def craft_threat(threat: ThreatModel) -> ThreatModel:
    """The part of a threat that an attack may see while it crafts.

    "transfer" and "white-box" say only which targets are judged, so they share what is crafted.
    """
    return threat if threat.access == "query" else replace(threat, access="transfer")


def _threat_values(threat: ThreatModel) -> dict[str, Any]:
    """A threat as plain values: epsilon, and what differs from its default, so that a new field changes no key."""
    default = type(threat)()
    values = {each.name: getattr(threat, each.name) for each in fields(threat)}
    return {
        name: _plain(value) for name, value in values.items() if name == "epsilon" or value != getattr(default, name)
    }


def _plain(value: Any) -> Any:
    """Settings as JSON has them: tuples become lists, paths text."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(v) for v in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def _check_only(only: Mapping[str, list[str]], known: Mapping[str, list[str]]) -> None:
    for name, values in only.items():
        if name not in known:
            raise BenchError(f"--only knows no '{name}': {nearest(name, known)}")
        for value in values:
            if value not in known[name]:
                raise BenchError(f"--only {name}={value}: no such {name} in this suite: {nearest(value, known[name])}")
