"""The suites of published networks on miniatures: real layouts, checkpoints in torchreid's format, the real code path.

The networks are untrained and the people are rendered: that a suite runs is shown, no figure.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute.executor import execute
from reid_attack_bench.jobs.manifest import describe
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.report.collect import collect
from reid_attack_bench.report.results import NOT_APPLICABLE, Results
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse
from reid_attack_bench.zoo.folder import WEIGHTS_VARIABLE
from tests import miniature

SHORT = {"misranking": {"options": {"steps": 2, "batch_identities": 2, "batch_instances": 2}}}
"""Mis-Ranking for two batches; all else is the suite's own."""


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    miniature.market1501(tmp_path)
    miniature.msmt17(tmp_path)
    return tmp_path


def ran(document: dict, data_root: Path, patch: pytest.MonkeyPatch, checks: bool = True) -> Results:
    path = data_root / "suite.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    suite = parse.load(str(path))
    miniature.zoo_weights(data_root / "weights", [str(entry.options["name"]) for entry in suite.victims])
    patch.setenv(WEIGHTS_VARIABLE, str(data_root / "weights"))
    plan = make_plan(suite, data_root=data_root)
    store = Store(data_root / "store")
    wanted = [key for key in plan.goals if checks or plan.steps[key].kind != "check"]  # these take long
    plan = replace(plan, wanted=tuple(wanted))
    outcome = execute(plan, store, torch.device("cpu"))
    assert not outcome.causes
    return collect(describe(plan, store, outcome, torch.device("cpu"), ""), store)


def complete(results: Results) -> None:
    assert results.cells
    assert {cell.status for cell in results.cells if not cell.status.startswith(NOT_APPLICABLE)} == {"ok"}
    assert {row.status for row in results.clean} == {"ok"}
    unchecked = [note for note in results.notes if note.startswith("Clean figure not checked: published on ")]
    assert unchecked, "a miniature is not the published data set"
    assert all("is another data set" in note for note in unchecked)


@pytest.mark.e2e
def test_two_networks_of_market1501_run_on_the_miniature(data_root: Path, monkeypatch) -> None:
    suite = {
        "extends": "market1501",
        "victims": ["mobilenetv2_x1_0-market1501", "osnet_x1_0-market1501"],
        "attacks": ["noise", "fgsm"],
    }
    results = ran(suite, data_root, monkeypatch, checks=False)
    complete(results)
    assert len(results.cells) == 2 * 2 * 2 * 2
    assert {cell.relation for cell in results.cells} == {"white-box", "cross-model"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["market1501", "msmt17", "market-to-msmt"])
def test_a_suite_of_published_networks_runs_whole_on_miniatures(name: str, data_root: Path, monkeypatch) -> None:
    whole = parse.load(name)
    own = {"protocol": whole.protocol, "relations": list(whole.relations)}  # which are not inherited
    results = ran({"extends": name, **own, "attacks": SHORT}, data_root, monkeypatch)
    complete(results)
    relations = {cell.relation for cell in results.cells}
    if name == "market-to-msmt":
        assert relations == {"white-box", "cross-dataset", "cross-both"}
        assert {cell.dataset for cell in results.cells} == {"msmt17"}
        assert {cell.fitted_on for cell in results.cells if cell.attack == "misranking"} == {"market1501", "msmt17"}
    else:
        assert relations == {"white-box", "cross-model"}
        assert len({cell.target for cell in results.cells}) == 8


def test_what_is_missing_is_said_at_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "weights"))
    with pytest.raises(BenchError) as caught:
        make_plan(parse.load("market-to-msmt"))
    said = str(caught.value)
    assert "\n" not in said
    assert "data set market1501 is read from disk: give --data-root" in said
    assert "data set msmt17 is read from disk: give --data-root" in said
    assert "reid-attack-bench weights get resnet50-market1501 resnet50_fc512-market1501" in said
