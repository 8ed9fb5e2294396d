"""Attacks of a plan, and the sources on which they can be crafted."""

from __future__ import annotations

import itertools

from reid_attack_bench import registry
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
            if threat.access == "query" and {"gradients", "logits"} & set(attack.needs):
                raise BenchError(
                    f"attack {entry.label} needs {' and '.join(sorted(attack.needs))}, not query access only"
                )
        options = {**plain(dict(entry.options)), **plain(registry.configuration(attack))}
        use = Configured(plugin.key, plugin.code, options, attack)
        runs += [
            AttackRun(entry.label, use, threat, seed, entry.adaptive, with_seed=bool(entry.seeds))
            for threat, seed in itertools.product(entry.threats, entry.seeds or (suite.seed,))
        ]
    return runs


def why_impossible(run: AttackRun, source: PlannedVictim) -> str:
    """Reason why `run` cannot be crafted on `source`; empty if it can."""
    if "gradients" in run.needs and not (source.differentiable or (source.purifies and run.adaptive)):
        unless = ", unless that is adaptive" if source.purifies else ""
        return f"{source.label} gives no gradients, so it can only be a target of {run.name}{unless}"
    if "logits" in run.needs and not source.classifies:
        return f"{source.label} has no logits, so it can only be a target of {run.name}"
    return ""
