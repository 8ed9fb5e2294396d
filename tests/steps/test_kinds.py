"""The table of kinds, and what a step is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reid_attack_bench import registry
from reid_attack_bench.contracts import PublishedValues
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.steps.kinds import KINDS, STEP_VERSIONS
from reid_attack_bench.steps.step import Step
from reid_attack_bench.suites import parse
from tests.plugins.toy import ToyVictim


def test_every_planned_step_is_of_a_kind_and_has_its_version(tiny) -> None:
    tiny["victims"]["known"] = {"use": "known"}
    victim = ToyVictim()
    victim.published = {"plaza": PublishedValues(90, 80)}
    live = {"known": registry.Plugin("victim", "known", victim, "v1", "memory")}
    steps = make_plan(parse.parse(tiny), live=live).steps.values()
    assert {step.kind for step in steps} == set(KINDS)
    assert all(step.version == KINDS[step.kind].version == STEP_VERSIONS[step.kind] for step in steps)


@pytest.mark.parametrize(
    ("change", "key", "seed"),
    [
        ({"config": {"a": 2}}, True, True),
        ({"kind": "fit"}, True, True),
        ({"parents": {"data": Step("data", 1, "plaza")}}, True, True),
        ({"version": 2}, True, False),
        ({"implementation": {"code": "v2"}}, True, False),
        ({"about": "other", "action": "do", "work": 5.0, "plugin": object(), "after": ("x",)}, False, False),
    ],
)
def test_what_decides_key_and_seed(change: dict, key: bool, seed: bool) -> None:
    step = Step("craft", 1, "it", {"a": 1}, {"code": "v1"})
    changed = replace(step, **change)
    assert (changed.key != step.key, changed.seed != step.seed) == (key, seed)


def test_a_label_is_an_action_on_something() -> None:
    assert Step("fit", 1, "pgd 8/255 against toy@plaza").label == "fit pgd 8/255 against toy@plaza"
    assert Step("victim", 1, "toy@plaza", action="train").label == "train toy@plaza"
