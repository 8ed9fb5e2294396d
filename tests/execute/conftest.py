"""A small plan, and what a run leaves in its store."""

from __future__ import annotations

import pytest

from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse
from tests.conftest import TOY, tiny_document


@pytest.fixture(autouse=True)
def ray_workers_get_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's workers are nice to other processes: beside other tests they would wait for minutes."""
    monkeypatch.setenv("RAY_worker_niceness", "0")


@pytest.fixture
def small_plan() -> Plan:
    return small()


def small() -> Plan:
    """One victim, one data set, two attacks."""
    document = tiny_document()
    del document["datasets"]["station"]
    document["victims"]["toy"]["train_on"] = ["plaza"]
    document["attacks"] = {"noise": {}, "learner": {"use": f"{TOY}:Learner"}}
    return make_plan(parse.parse(document), only={"dataset": ["plaza"]})


def results(plan: Plan, store: Store) -> dict[str, dict[str, str]]:
    """Label → digests of the files that the step made."""
    return {
        step.label: store.manifest(step.kind, key)["files"]
        for key, step in plan.steps.items()
        if store.has(step.kind, key)
    }
