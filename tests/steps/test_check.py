"""The step that checks a victim in a run, and what a report reads of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reid_attack_bench.checks.result import NOT_CHECKED
from reid_attack_bench.execute.executor import execute
from reid_attack_bench.jobs import manifest
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.report.collect import collect
from reid_attack_bench.report.results import Results
from reid_attack_bench.steps import check, kinds
from reid_attack_bench.steps.check import check_step
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse
from tests.plugins import malformed
from tests.plugins.toy import ToyVictim
from tests.steps.conftest import Lab, toy

MALFORMED = Path(malformed.__file__)


def test_a_run_repeats_its_results(lab: Lab, data, tmp_path: Path) -> None:
    step = check_step(toy(), data, 4)
    lab.run(step)
    again = Lab(tmp_path / "again")
    again.folder.mkdir()
    again.run(step)
    found = lab.facts[step.key]["results"]
    assert found == again.facts[step.key]["results"], "nothing of it is measured in seconds"
    assert {"output", "gradient", "ranking"} <= {result["name"] for result in found}
    assert "speed" not in {result["name"] for result in found}


def test_only_victim_data_and_batch_decide_its_key(data) -> None:
    step = check_step(toy(), data, 4)
    assert check_step(toy(), data, 4).key == step.key
    assert step.seed == check_step(toy(), data, 8).seed
    assert len({step.key, check_step(toy(), data, 8).key, check_step(toy(1), data, 4).key}) == 3


def test_each_victim_is_checked_once_at_home(tiny) -> None:
    tiny["victims"]["mine"] = {"use": f"{malformed.__file__}:Valid"}
    plan = make_plan(parse.parse(tiny))
    checks = [step for step in plan.steps.values() if step.kind == "check"]
    first = next(iter(tiny["datasets"]))
    homes = {step.parents["victim"].about: step.parents["data"].about for step in checks}
    assert homes == {"toy@plaza": "plaza", "toy@station": "station", "mine": first}
    assert {row.check_key for row in plan.clean} == {step.key for step in checks} <= set(plan.goals)
    other = make_plan(parse.parse({**tiny, "attacks": {"noise": {"epsilon": 3}}}))
    assert {step.key for step in checks} == {step.key for step in other.steps.values() if step.kind == "check"}


def results(tiny: dict, store: Path) -> Results:
    tiny["attacks"] = {"noise": {}}
    tiny["victims"] = {"mine": {"use": f"{MALFORMED}:Rounds"}, "toy": {"use": f"{MALFORMED.parent}/toy.py:ToyVictim"}}
    plan = make_plan(parse.parse(tiny))
    outcome = execute(plan, Store(store), torch.device("cpu"))
    return collect(manifest.describe(plan, Store(store), outcome, torch.device("cpu"), ""), Store(store))


@pytest.mark.e2e
def test_a_report_reads_notes_and_faults(tiny, tmp_path: Path) -> None:
    found = {row.victim: row.checks for row in results(tiny, tmp_path).clean}
    assert ("gradient", "fault") in {(result.name, result.level) for result in found["mine"]}
    assert {result.level for result in found["toy"]} <= {"note"}


@pytest.mark.e2e
def test_checks_that_fail_fail_nothing_else(tiny, tmp_path: Path, monkeypatch) -> None:
    def dies(*images, **options):
        raise RuntimeError("no checks today")

    monkeypatch.setattr(check, "check", dies)
    made = results(tiny, tmp_path)
    assert all(cell.ok for cell in made.cells)
    for row in made.clean:
        assert [result.name for result in row.checks] == [NOT_CHECKED]
        assert "no checks today" in row.checks[0].evidence
    old = replace(made.record, clean=tuple(replace(row, check_key="") for row in made.record.clean))
    assert {row.checks[0].name for row in collect(old, Store(tmp_path)).clean} == {NOT_CHECKED}


def test_data_that_cannot_be_ranked_is_said(lab: Lab, data, monkeypatch) -> None:
    from reid_attack_bench.errors import BenchError

    def refuses(*images, **options):
        raise BenchError("no identity is seen by two cameras")

    monkeypatch.setattr(check, "check", refuses)
    step = check_step(toy(victim=ToyVictim()), data, 4)
    lab.run(step)
    (only,) = lab.facts[step.key]["results"]
    assert (only["name"], only["level"]) == (NOT_CHECKED, "note")
    assert "two cameras" in only["evidence"]


def test_its_kind_is_registered() -> None:
    assert kinds.KINDS["check"].version == check.VERSION
