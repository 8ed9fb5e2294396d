"""The suite reranking: one set of adversarial images for a victim as it is and re-ranked."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from reid_attack_bench.execute.executor import execute
from reid_attack_bench.jobs.manifest import describe
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.report import retrieval
from reid_attack_bench.report.collect import collect
from reid_attack_bench.report.write import write_report
from reid_attack_bench.steps.artefacts import read_nearest
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse

TRICKS = ("k-reciprocal", "query-expansion")


def test_attacks_are_crafted_once_on_the_plain_victims() -> None:
    plan = make_plan(parse.load("reranking"))
    assert not [cell for cell in plan.cells if cell.impossible]
    for cell in plan.cells:
        assert not any(trick in cell.source for trick in TRICKS)
    by_images: dict[str, set[str]] = {}
    for cell in plan.cells:
        by_images.setdefault(cell.craft_key, set()).add(cell.target)
    for targets in by_images.values():
        plain = {target for target in targets if not any(trick in target for trick in TRICKS)}
        assert plain
        for trick in TRICKS:
            twins = {target.replace(f"+{trick}", "") for target in targets if trick in target}
            assert twins == plain, "each target is evaluated on the same images in all three forms"
    assert {cell.threat.epsilon for cell in plan.cells} == {8, 16}


@pytest.mark.e2e
def test_a_small_form_of_it_runs_to_its_report(tiny: dict, tmp_path: Path) -> None:
    tiny["datasets"] = {"plaza": tiny["datasets"]["plaza"]}
    tiny["victims"]["toy"]["train_on"] = ["plaza"]
    tiny["victims"] |= {f"toy+{trick}": {"use": trick, "defends": "toy", "roles": "target"} for trick in TRICKS}
    tiny["attacks"] = {"noise": {"epsilon": 8}, "metric_pgd": {"epsilon": 8, "options": {"steps": 2}}}
    tiny["headline_epsilon"] = 8
    plan, store = make_plan(parse.parse(tiny)), Store(tmp_path / "store")
    outcome = execute(plan, store, torch.device("cpu"))
    assert not outcome.causes
    record = describe(plan, store, outcome, torch.device("cpu"), "")
    results = collect(record, store)
    assert {(cell.target, cell.status) for cell in results.cells} == {
        ("toy@plaza", "ok"), ("toy+k-reciprocal@plaza", "ok"), ("toy+query-expansion@plaza", "ok"),
    }  # fmt: skip
    values = {row.victim: row.values for row in results.clean}
    assert values["toy+k-reciprocal@plaza"] != values["toy@plaza"]
    chosen = {sheet.craft_key: sheet.queries for sheet in results.sheets}
    for cell in plan.cells:
        shown, stored = results.retrieved[cell.rank_key], read_nearest(store.folder("rank", cell.rank_key))
        assert shown.after.shape[1] == retrieval.K
        assert (stored is None) == (cell.target == "toy@plaza")
        if stored is not None:
            np.testing.assert_array_equal(shown.after, stored[chosen[cell.craft_key]][:, : retrieval.K])
            clean = read_nearest(store.folder("clean-rank", cell.clean_rank_key))
            assert clean is not None
            np.testing.assert_array_equal(shown.before, clean[chosen[cell.craft_key]][:, : retrieval.K])
    write_report(results, tmp_path / "report")
    table = pd.read_csv(tmp_path / "report" / "same_images.csv")
    assert set(zip(table.defence, table.attack, strict=True)) == set(itertools.product(TRICKS, ["noise", "metric_pgd"]))
    assert (
        "## Defences and their undefended baselines on the same images" in (tmp_path / "report/report.md").read_text()
    )
