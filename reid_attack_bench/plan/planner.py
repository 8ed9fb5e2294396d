"""From a suite to a plan: the DAG of content-addressed steps, and the cells of the matrix that they fill."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reid_attack_bench import registry
from reid_attack_bench.adversary import adaptive
from reid_attack_bench.contracts import (
    Attack,
    Defence,
    LearnedAttack,
    LearnedDefence,
    ThreatModel,
    Victim,
    craft_threat,
    fit_threat,
    threat_values,
    weights_digest,
)
from reid_attack_bench.data import catalogue as datasets
from reid_attack_bench.data.catalogue import DataSource
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.files import file_digest, plain
from reid_attack_bench.metrics.lpips import find_lpips_weights
from reid_attack_bench.plan.plan import Cell, CleanRow, Plan
from reid_attack_bench.plan.victims import PlannedVictim, is_source, relation_of
from reid_attack_bench.steps.step import Step
from reid_attack_bench.suites.suite import AttackEntry, Suite, VictimEntry


def make_plan(
    suite: Suite,
    *,
    data_root: Path | None = None,
    only: Mapping[str, Iterable[str]] | None = None,
    remember: Path | None = None,
    live: Mapping[str, registry.Plugin] | None = None,
) -> Plan:
    """Lay out every step of a suite.

    Args:
        suite: what to cross.
        data_root: folder of the real data sets.
        only: restrict cells, e.g. {"attack": ["pgd"], "source": [...], "target": [...], "dataset": [...]}.
        remember: where what real data sets hold is kept, so that it is not read again: see data.real.content_of.
        live: label → victim in memory, used in place of the one that its entry names.

    Raises:
        BenchError: an unknown name or setting anywhere in the suite.
    """
    return _Planner(suite, data_root, remember, live or {}).plan({k: list(v) for k, v in (only or {}).items()})


class _Planner:
    def __init__(
        self, suite: Suite, data_root: Path | None, remember: Path | None, live: Mapping[str, registry.Plugin]
    ) -> None:
        self.suite, self.live = suite, live
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
        victims: list[PlannedVictim] = []
        for each in suite.victims:
            victims += self._victims(each, data, sources, victims)
        attacks = [(entry, *self._attack(entry)) for entry in suite.attacks]
        _check_only(
            only,
            {
                "attack": [entry.label for entry in suite.attacks],
                "source": [v.label for v in victims if is_source(v)],
                "target": [v.label for v in victims if "target" in v.roles],
                "dataset": list(sources),
            },
        )

        def wanted(field_name: str, value: str) -> bool:
            return field_name not in only or value in only[field_name]

        clean: dict[tuple[str, str], CleanRow] = {}

        def clean_row(victim: PlannedVictim, name: str) -> CleanRow:
            if (victim.label, name) not in clean:
                clean[victim.label, name] = self._clean(victim, sources[name], data[name], gate(victim, name))
            return clean[victim.label, name]

        def gate(victim: PlannedVictim, name: str | None = None) -> tuple[str, ...]:
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
                    if not is_source(victim) or not wanted("source", victim.label):
                        continue
                    for name in chosen:
                        everyone = threat.access == "transfer" and "source" in victim.roles
                        meets = [t for t in targets if everyone or t.label == victim.label]
                        if suite.relations:
                            meets = [t for t in meets if relation_of(victim, t, name, data) in suite.relations]
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
        others: list[PlannedVictim],
    ) -> list[PlannedVictim]:
        plugin = self.live.get(entry.label) or registry.find("victim", entry.use)
        subject = plugin.build(entry.options)
        options = {**plain(dict(entry.options)), **plain(registry.configuration(subject))}
        config: dict[str, Any] = {"victim": plugin.key, "options": options}
        code = {"code": plugin.code}
        if isinstance(subject, Victim):
            if entry.train_on:
                raise BenchError(f"victim {entry.label} comes trained (it has no fit): remove train_on")
            config["weights"] = weights_digest(subject)
            step = self._add(Step("victim", f"victim {entry.label}", config, code, subject=subject, work=10))
            home = subject.trained_on
            purifies = type(subject).purify is not Victim.purify
            classifies = subject.classifies
            return [
                PlannedVictim(
                    entry.label, entry.label, home, step, entry.roles, subject.differentiable, purifies, classifies
                )
            ]
        if isinstance(subject, Defence):
            return self._defended(entry, subject, config, code, data, others)
        if entry.defends:
            raise BenchError(f"victim {entry.label} defends {entry.defends}, but {entry.use} has no defend")
        if not entry.train_on:
            raise BenchError(f"victim {entry.label} must be trained: name its data sets in train_on")
        made = []
        for name in entry.train_on:
            label = f"{entry.label}@{name}"
            passes = 3.0 * subject.epochs * sources[name].image_count * 0.6
            config_here = {**config, "seed": self.suite.seed}
            step = self._add(
                Step("victim", f"train {label}", config_here, code, {"data": data[name]}, subject=subject, work=passes)
            )
            differentiable = subject.differentiable
            made.append(PlannedVictim(label, entry.label, name, step, entry.roles, differentiable))
        return made

    def _defended(
        self,
        entry: VictimEntry,
        subject: Defence,
        config: dict[str, Any],
        code: dict[str, Any],
        data: Mapping[str, Step],
        others: list[PlannedVictim],
    ) -> list[PlannedVictim]:
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
            if isinstance(subject, LearnedDefence):
                if other.home not in data:
                    raise BenchError(
                        f"victim {label} must be trained, and {other.label} does not say on which data set"
                    )
                parents["data"] = data[other.home]
                work, own = subject.fit_work, {**config, "seed": self.suite.seed}
            kind = "train" if isinstance(subject, LearnedDefence) else "victim"
            step = self._add(Step("victim", f"{kind} {label}", own, code, parents, subject=subject, work=work))
            differentiable = other.differentiable and subject.differentiable
            purifies = subject.purifies or (other.purifies and not differentiable)
            made.append(
                PlannedVictim(
                    label, entry.label, other.home, step, entry.roles, differentiable, purifies, other.classifies
                )
            )
        return made

    def _attack(self, entry: AttackEntry) -> tuple[registry.Plugin, Attack]:
        plugin = registry.find("attack", entry.use)
        attack = plugin.build(entry.options)
        for threat in entry.threats:
            if threat.access == "query" and {"gradients", "logits"} & set(attack.needs):
                raise BenchError(
                    f"attack {entry.label} needs {' and '.join(sorted(attack.needs))}, not query access only"
                )
        return plugin, attack

    def _clean(self, victim: PlannedVictim, source: DataSource, data: Step, gate: tuple[str, ...]) -> CleanRow:
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

    def _expected(self, victim: PlannedVictim) -> float:
        for entry in self.suite.victims:
            if victim.label in (entry.label, f"{entry.label}@{victim.home}"):
                return entry.expected_rank1
        return 0.0

    def _cells(
        self,
        entry: AttackEntry,
        plugin: registry.Plugin,
        attack: Attack,
        threat: ThreatModel,
        seed: int,
        source: PlannedVictim,
        gate: tuple[str, ...],
        on: DataSource,
        data: Mapping[str, Step],
        targets: list[PlannedVictim],
        clean: Mapping[str, CleanRow],
    ) -> list[Cell]:
        needs = tuple(sorted(attack.needs))
        budget = f"{entry.label} {threat.epsilon}/255" + (f" k{threat.pixels}" if threat.pixels else "")
        if entry.seeds:
            budget += f" seed {seed}"

        def cell(target: PlannedVictim, **keys: str) -> Cell:
            access = "white-box" if target.label == source.label else "transfer"
            return Cell(
                entry.label, threat, seed, "query" if threat.access == "query" else access, needs, source.label,
                target.label, relation_of(source, target, on.name, data), on.name, on.synthetic,
                clean[target.label].rank_key, data[on.name].key, attack.family,
                _iterations(attack), entry.adaptive, **keys,
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
            "options": {**plain(dict(entry.options)), **plain(registry.configuration(attack))},
            "threat": threat_values(craft_threat(threat)),
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
        if isinstance(attack, LearnedAttack):
            # A victim that does not say what it was trained on is attacked with what the attacker has at hand.
            home = source.home if source.home in data else next(iter(data))
            fit = self._add(
                Step(
                    "fit",
                    f"fit {budget} against {source.label}",
                    {**config, "threat": threat_values(fit_threat(threat))},
                    code,
                    {"source": source.step, "data": data[home]},
                    after=gate,
                    subject=attack,
                    work=attack.fit_work,
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
                work=images * attack.craft_work,
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


def _iterations(attack: Attack) -> int:
    """Gradient steps per image; `steps` of an attack outside any family, or of one that learns, are something else."""
    return attack.steps if attack.family and not isinstance(attack, LearnedAttack) else 1


def _check_only(only: Mapping[str, list[str]], known: Mapping[str, list[str]]) -> None:
    for name, values in only.items():
        if name not in known:
            raise BenchError(f"--only knows no '{name}': {nearest(name, known)}")
        for value in values:
            if value not in known[name]:
                raise BenchError(f"--only {name}={value}: no such {name} in this suite: {nearest(value, known[name])}")
