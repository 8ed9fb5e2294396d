"""From a suite to a plan: the graph of content-addressed steps, and the cells of the matrix that they fill."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reid_attack_bench.contracts import LearnedAttack
from reid_attack_bench.data import catalogue as datasets
from reid_attack_bench.errors import BenchError, joined, nearest
from reid_attack_bench.files import file_digest
from reid_attack_bench.metrics.lpips import find_lpips_weights
from reid_attack_bench.plan.attacks import on_source, plan_attacks, why_impossible
from reid_attack_bench.plan.clean import CleanRows
from reid_attack_bench.plan.plan import Cell, CleanRow, Plan, PlanSource
from reid_attack_bench.plan.sources import PlannedSource, sources_of
from reid_attack_bench.plan.victims import PlannedVictim, missing_weights, plan_victims
from reid_attack_bench.registry import Plugin
from reid_attack_bench.steps.attack_run import AttackRun
from reid_attack_bench.steps.craft import craft_step
from reid_attack_bench.steps.data import data_step, has_training_split, source_of
from reid_attack_bench.steps.embed import features_step
from reid_attack_bench.steps.fit import fit_step
from reid_attack_bench.steps.measure import measure_step
from reid_attack_bench.steps.probe import DIFFERS
from reid_attack_bench.steps.rank import rank_step
from reid_attack_bench.steps.step import Step
from reid_attack_bench.suites.suite import Suite


def make_plan(
    suite: Suite,
    *,
    data_root: Path | None = None,
    only: Mapping[str, Iterable[str]] | None = None,
    remember: Path | None = None,
    live: Mapping[str, Plugin] | None = None,
) -> Plan:
    """Lay out every step of a suite.

    Args:
        suite: data sets, victims and attacks to cross.
        data_root: folder of the real data sets.
        only: restrict cells, e.g. {"attack": ["pgd"], "source": [...], "target": [...], "dataset": [...]}.
        remember: folder that caches the contents of real data sets, see data.readers.content.
        live: label → victim in memory, used in place of the plug-in that its entry names.

    Raises:
        BenchError: an unknown name or setting anywhere in the suite; or data or weights are missing, all in one line.
    """
    data = _data_steps(suite, data_root, remember, live or {})
    victims, attacks = plan_victims(suite, data, live or {}), plan_attacks(suite)
    chosen = _Selection({field: list(values) for field, values in (only or {}).items()})
    sources = _sources(suite, attacks, victims)
    chosen.check(suite, victims, {source.label for each in sources.values() for source in each})
    planner = _Planner(suite, data)
    for step in (*data.values(), *(victim.step for victim in victims)):
        planner.add(step)
    targets = [victim for victim in victims if victim.is_target and chosen.has("target", victim.label)]
    names = [name for name in data if chosen.has("dataset", name)]
    for victim in targets:  # clean first: a victim that did not learn stops its own cells early
        for name in names:
            if not suite.relations or victim.home == name or victim.home not in data:
                planner.clean.row(victim, name)
    cells = [
        cell
        for run in attacks
        if chosen.has("attack", run.name)
        for source in sources[run.name]
        if chosen.has("source", source.label)
        for name in names
        for cell in planner.cells(run, source, name, targets)
    ]
    if not victims:
        raise BenchError(f"suite {suite.name} has no victims of its own: add one with evaluate --victim")
    if not cells:
        raise BenchError("nothing to run: no attack meets a source and a target with these settings")
    source = None if live else PlanSource(data_root, chosen.only, remember)
    clean = tuple(planner.clean.rows.values())
    notes = [note for step in data.values() for note in source_of(step).notes] + planner.clean.notes(victims)
    notes += [
        f"{victim.label} answers one image differently with the same seeds: nobody can compute its figures again (see "
        "check-victim), and a change of code or settings outside its own file and weights is not noticed: its stored "
        "results are used"
        for victim in victims
        if victim.step.implementation.get("probe") == DIFFERS
    ]
    return Plan(suite, planner.steps, clean, tuple(cells), source=source, notes=tuple(notes))


def _data_steps(
    suite: Suite, data_root: Path | None, remember: Path | None, live: Mapping[str, Plugin]
) -> dict[str, Step]:
    """Name → data step. If one cannot be planned, the error names all of them, and the weights that are missing too."""
    found: dict[str, Step] = {}
    wrong: list[BenchError] = []
    for name, options in suite.datasets.items():
        try:
            source = datasets.source(
                name, options, size=suite.image_size, seed=suite.seed, data_root=data_root, remember=remember
            )
            found[name] = data_step(source)
        except BenchError as error:
            wrong.append(error)
    if wrong:
        with contextlib.suppress(BenchError):  # another mistake in a victim is said once there are data
            missing = missing_weights(suite, live)
            wrong += [joined(missing)] if missing else []
        raise wrong[0] if len(wrong) == 1 else BenchError("; ".join(map(str, wrong)))
    return found


def _sources(
    suite: Suite, attacks: Iterable[AttackRun], victims: Sequence[PlannedVictim]
) -> dict[str, list[PlannedSource]]:
    """Label of an attack → what it is crafted on."""
    runs = {run.name: run for run in attacks}
    targets = [victim for victim in victims if victim.is_target]
    return {entry.label: sources_of(entry, runs[entry.label], victims, targets) for entry in suite.attacks}


class _Planner:
    """Collects the steps of a plan; steps with one key are one step.

    Attributes:
        data: name → data step.
        steps: key → step, in an order that satisfies their inputs.
        passes: precision and compilation of victims, as part of a step's implementation.
        clean: rows without attack, and their gates.
    """

    def __init__(self, suite: Suite, data: Mapping[str, Step]) -> None:
        self.suite, self.data = suite, data
        self.steps: dict[str, Step] = {}
        # defaults are left out of the key, so results stored before these options existed are still found
        self.passes: dict[str, Any] = {} if suite.precision == "float32" else {"precision": suite.precision}
        self.passes |= {"compile": True} if suite.compile else {}
        self.clean = CleanRows(data, self.add, self.passes, suite.batch_size)
        weights = find_lpips_weights()
        self.lpips = file_digest(weights) if weights else None

    def add(self, step: Step) -> Step:
        return self.steps.setdefault(step.key, step)

    def cells(
        self, run: AttackRun, source: PlannedSource, name: str, targets: Iterable[PlannedVictim]
    ) -> Iterable[Cell]:
        """Cells of one attack on one source and one data set, with their steps."""
        if run.defended_only and not source.defended:
            return
        evaluated = [target for target in targets if source.attacks(target, run.threat)]
        for wanted in filter(None, (self.suite.relations, run.relations)):
            evaluated = [target for target in evaluated if source.relation_to(target, name, self.data) in wanted]
        if not evaluated:
            return
        rows = [self.clean.row(target, name) for target in evaluated]
        for member in source.members:
            self.clean.plan_gates(member)
        gate = tuple(key for member in source.members for key in self.clean.gate(member))
        run = on_source(run, *source.members)
        impossible = why_impossible(run, *source.members) or self._why_unfitted(run, source)
        craft = None if impossible else self._craft(run, source, name, gate)
        measure = craft and self.add(measure_step(craft, self.data[name], self.lpips))
        for target, row in zip(evaluated, rows, strict=True):
            if craft is None or measure is None:
                yield self._cell(run, source, target, row, impossible=impossible)
            else:
                yield self._cell(run, source, target, row, **self._made(craft, measure, target, row))

    def _fitted_on(self, source: PlannedSource) -> str:
        """Data set that a learned attack is fitted on: the training data of the first of several sources.

        Where that is unknown, the first of the suite with a training split; empty if none has one.
        """
        home = source.members[0].home
        return (
            home if home in self.data else next(filter(lambda name: has_training_split(self.data[name]), self.data), "")
        )

    def _why_unfitted(self, run: AttackRun, source: PlannedSource) -> str:
        """Reason why a learned attack has no images to be fitted on; empty if it has, and for other attacks."""
        name = self._fitted_on(source)
        if not isinstance(run.attack, LearnedAttack) or (name and has_training_split(self.data[name])):
            return ""
        where = f"{name}, which {source.members[0].label} was trained on, has no" if name else "no data set has a"
        return f"{run.name} is fitted on training images, and {where} training split"

    def _craft(self, run: AttackRun, source: PlannedSource, name: str, gate: tuple[str, ...]) -> Step:
        fit, steps = None, [member.step for member in source.members]
        if isinstance(run.attack, LearnedAttack):
            fit = self.add(fit_step(run, steps, self.data[self._fitted_on(source)], gate))
        data = self.data[name]
        return self.add(
            craft_step(run, steps, data, fit, self.passes, self.suite.batch_size, gate, self.suite.draw_batch)
        )

    def _cell(self, run: AttackRun, source: PlannedSource, target: PlannedVictim, row: CleanRow, **others: str) -> Cell:
        own = "white-box" if run.threat.sees == "gradients" else "query"
        return Cell(
            attack=run.name,
            threat=run.threat,
            seed=run.seed,
            access=own if source.has(target) else "transfer",
            needs=run.needs,
            source=source.label,
            target=target.label,
            relation=source.relation_to(target, row.dataset, self.data),
            dataset=row.dataset,
            synthetic=row.synthetic,
            clean_rank_key=row.rank_key,
            data_key=self.data[row.dataset].key,
            family=run.attack.family,
            steps=run.iterations,
            adaptive=run.adaptive,
            protocol=run.protocol,
            withdrawn=row.withdrawn,
            **others,
        )

    def _made(self, craft: Step, measure: Step, target: PlannedVictim, row: CleanRow) -> dict[str, str]:
        """Fields of the cell in which `target` embeds and ranks the images of `craft`."""
        data = self.data[row.dataset]
        gate = (row.rank_key, *row.figure_keys)
        features = self.add(features_step(craft, target.step, data, self.passes, gate, target.randomised))
        rank = self.add(rank_step(features, self.steps[row.features_key], target.step, data))
        fitted_on = craft.parents["fit"].parents["data"].about if "fit" in craft.parents else ""
        keys = {"craft": craft.key, "measure": measure.key, "features": features.key, "rank": rank.key}
        return {"fitted_on": fitted_on, **{f"{name}_key": key for name, key in keys.items()}}


class _Selection:
    """Restriction of a plan to some attacks, sources, targets and data sets."""

    def __init__(self, only: Mapping[str, list[str]]) -> None:
        self.only = only

    def has(self, field: str, value: str) -> bool:
        return field not in self.only or value in self.only[field]

    def check(self, suite: Suite, victims: Iterable[PlannedVictim], sources: Iterable[str]) -> None:
        """Raises BenchError for a key or a value that the suite does not have."""
        known = {
            "attack": [entry.label for entry in suite.attacks],
            "source": list(dict.fromkeys([*(victim.label for victim in victims if victim.is_source), *sources])),
            "target": [victim.label for victim in victims if victim.is_target],
            "dataset": list(suite.datasets),
        }
        for name, values in self.only.items():
            if name not in known:
                raise BenchError(f"--only: unknown key '{name}': {nearest(name, known)}")
            for value in values:
                if value not in known[name]:
                    raise BenchError(
                        f"--only {name}={value}: no such {name} in this suite: {nearest(value, known[name])}"
                    )
