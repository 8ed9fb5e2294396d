"""Probes of victims on another machine: a digest that rounding may change, see `steps.probe`.

A probe is in the key of a ready victim, so that nothing stale is taken from a store. Of a submission all figures are
made again, so one that is another here decides nothing: it is taken from the submission, if all else in the key agrees.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reid_attack_bench.jobs.submission.archive import Archive, place
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.report.record import RunRecord
from reid_attack_bench.steps.step import Step
from reid_attack_bench.validation import parse_json


def claimed_probes(archive: Archive, record: RunRecord, plan: Plan) -> dict[str, str]:
    """Key here → probe in the submission, of victims whose key there differs in the probe alone.

    Raises:
        BenchError: the manifest of a victim in the archive is no JSON.
    """
    found = {}
    claimed = {step.label: step.key for step in record.steps if step.kind == "victim"}
    for key, step in plan.steps.items():
        theirs = claimed.get(step.label, "") if step.kind == "victim" and "probe" in step.implementation else ""
        name = place("victim", theirs, "manifest.json")
        if theirs in ("", key) or name not in archive.sizes:
            continue
        about = parse_json(archive.read(name), f"{archive.path}: {name}")
        given = about.get("implementation") if isinstance(about, dict) else None
        probe = given.get("probe", "") if isinstance(given, dict) else ""
        if isinstance(probe, str) and re.fullmatch(r"[a-z0-9]{1,32}", probe) and _probed(step, probe).key == theirs:
            found[key] = probe
    return found


def with_probes(plan: Plan, probes: Mapping[str, str]) -> Plan:
    """The plan with other probes of victims, by key, and with the keys that follow from them."""
    made: dict[str, Step] = {}
    for key, step in plan.steps.items():
        parents = {role: made[parent.key] for role, parent in step.parents.items()}
        after = tuple(made[each].key if each in made else each for each in step.after)
        step = replace(step, parents=parents, after=after)
        made[key] = _probed(step, probes[key]) if key in probes else step
    new = {key: step.key for key, step in made.items()}
    return replace(
        plan,
        steps={step.key: step for step in made.values()},
        cells=tuple(replace(cell, **_renamed(cell, new)) for cell in plan.cells),
        clean=tuple(replace(row, **_renamed(row, new)) for row in plan.clean),
    )


def _probed(step: Step, probe: str) -> Step:
    return replace(step, implementation={**step.implementation, "probe": probe})


def _renamed(row: Any, new: Mapping[str, str]) -> dict[str, Any]:
    """Fields of a row that hold keys, with the new ones."""
    found: dict[str, Any] = {name: new.get(key, key) for name, key in vars(row).items() if name.endswith("_key")}
    if hasattr(row, "figure_keys"):
        found["figure_keys"] = tuple(new.get(key, key) for key in row.figure_keys)
    return found
