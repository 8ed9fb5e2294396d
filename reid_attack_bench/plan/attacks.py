"""Attacks of a plan, and the sources on which they can be crafted."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from reid_attack_bench import registry
from reid_attack_bench.contracts import Attack, QueryAttack, ThreatModel
from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import plain
from reid_attack_bench.plan.victims import PlannedVictim
from reid_attack_bench.steps.attack_run import AttackRun
from reid_attack_bench.steps.step import Configured
from reid_attack_bench.suites.suite import Suite


def plan_attacks(suite: Suite) -> list[AttackRun]:
    """Every attack of a suite under each of its threat models with each of its seeds, in order.

    Raises:
        BenchError: an unknown attack or option, or an attack that needs more than its access gives.
    """
    runs: list[AttackRun] = []
    for entry in suite.attacks:
        plugin = registry.find("attack", entry.use)
        attack = plugin.build(entry.options)
        for threat in entry.threats:
            _check_access(entry.label, attack, threat)
        options = {**plain(dict(entry.options)), **plain(registry.configuration(attack))}
        use = Configured(plugin.key, plugin.code, options, attack)
        runs += [
            AttackRun(
                entry.label,
                use,
                threat,
                seed,
                entry.adaptive,
                with_seed=bool(entry.seeds),
                defended_only=entry.defended_only,
                protocol=entry.protocol,
                relations=entry.relations,
            )
            for threat, seed in itertools.product(entry.threats, entry.seeds or (suite.seed,))
        ]
    return runs


def _check_access(label: str, attack: Attack, threat: ThreatModel) -> None:
    """Raise BenchError if `threat` does not show what `attack` needs, or has a goal that it cannot follow."""
    forms = {"embedding", "distances", "ranking"} & set(attack.needs)
    wanted = next(iter(forms)) if isinstance(attack, QueryAttack) and len(forms) == 1 else ""
    if isinstance(attack, QueryAttack) and not wanted:
        raise BenchError(f"attack {label}: a query attack needs one of embedding, distances and ranking")
    if forms and not wanted:
        raise BenchError(f"attack {label} needs {forms.pop()}, which only a QueryAttack can ask for: inherit it")
    if wanted and threat.sees != wanted:
        raise BenchError(f"attack {label} asks for {wanted}: set sees: {wanted} and a number of queries, such as 1000")
    if attack.needs and not wanted and threat.sees != "gradients":
        raise BenchError(
            f"attack {label} needs {' and '.join(sorted(attack.needs))}, and sees: {threat.sees} shows answers only"
        )
    if threat.impersonate and attack.needs and not attack.impersonates:
        raise BenchError(f"attack {label} can only hide: leave out impersonate")
    if threat.impersonate == "hardest" and not attack.needs:
        raise BenchError(
            f"attack {label} uses no source, whose embeddings choose the hardest identity: set impersonate: random"
        )


def on_source(run: AttackRun, *members: PlannedVictim) -> AttackRun:
    """`run` in its form without logits for a source that has none, or for several of which it cannot take them."""
    if "logits" not in run.needs or (_joins_logits(run, members) and all(member.classifies for member in members)):
        return run
    other = run.attack.without_logits()
    return run if other is None else replace(run, use=replace(run.use, plugin=other))


def _joins_logits(run: AttackRun, members: Sequence[PlannedVictim]) -> bool:
    return len(members) == 1 or run.attack.takes_members


def why_impossible(run: AttackRun, *members: PlannedVictim) -> str:
    """Reason why `run` cannot be crafted on a source, or on several at once; empty if it can."""
    if "logits" in run.needs and not _joins_logits(run, members):
        return f"{run.name} needs logits, which it cannot take from several sources at once"
    own = next((member.label for member in members if member.own_comparison), "")
    if run.needs and run.attack.reads != "logits" and own and len(members) > 1:
        return f"several sources are compared by the cosine distance, and {own} by a comparison of its own"
    return next((reason for member in members if (reason := _why_impossible(run, member))), "")


def _why_impossible(run: AttackRun, source: PlannedVictim) -> str:
    if "gradients" in run.needs and not (source.differentiable or (source.purifies and run.adaptive)):
        unless = ", unless that is adaptive" if source.purifies else ""
        return f"{source.label} gives no gradients, so it can only be a target of {run.name}{unless}"
    if "logits" in run.needs and not source.classifies:
        what = "logits have one class" if source.one_class else f"{source.label} has no logits"
        return f"{what}, so it can only be a target of {run.name}"
    return _why_incomparable(run, source) if source.own_comparison and run.needs else ""


def _why_incomparable(run: AttackRun, source: PlannedVictim) -> str:
    """Reason why `run` cannot follow the comparison of `source`, which is its own; empty if it can."""
    if run.attack.reads == "embeddings":
        return (
            f"{source.label} ranks by a comparison of its own, and {run.name} reads embeddings themselves, so it can "
            f"only be a target of {run.name}"
        )
    if run.attack.reads == "distances" and "gradients" in run.needs and not source.differentiable_comparison:
        return f"the comparison of {source.label} gives no gradients, so it can only be a target of {run.name}"
    return ""
