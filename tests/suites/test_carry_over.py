"""The suite `carry-over`: one plan over rendered people and a real layout, and the comparison that it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

import reid_attack_bench
from reid_attack_bench.data.readers.export import write_market1501
from reid_attack_bench.data.synthetic import render_domain
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.suites import parse
from tests.conftest import TOY
from tests.plugins import published

COUNTS = {"train_identities": 2, "test_identities": 6, "images_per_camera": 1, "queries_per_identity": 1}


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a few rendered people in the layout of Market-1501."""
    root = tmp_path_factory.mktemp("data")
    write_market1501(render_domain("plaza", seed=1, size=(64, 32), **COUNTS), root)
    return root


def test_every_attack_meets_both_data_sets_white_box_and_transferred(
    market: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.stand_in(monkeypatch)
    plan = make_plan(parse.load("carry-over", data=["rush", "market1501"]), data_root=market)
    places = {name: {c.attack: set() for c in plan.cells} for name in ("rush", "market1501")}
    for cell in plan.cells:
        assert not cell.impossible
        places[cell.dataset][cell.attack].add(cell.relation)
    assert places["rush"] == places["market1501"]
    assert len(places["rush"]) == 15
    for attack, relations in places["rush"].items():
        assert relations == ({"white-box"} if attack in ("square", "nes") else {"white-box", "cross-model"})
    assert not any(step.kind == "fit" for step in plan.steps.values()), "nothing is trained"


@pytest.mark.e2e
def test_a_small_run_compares_the_orders(market: Path, tmp_path: Path) -> None:
    suite = tmp_path / "small.yaml"
    suite.write_text(f"""
extends: carry-over
replace: [datasets, victims]
image_size: [64, 32]
datasets:
  rush: {{train_identities: 1, test_identities: 8, distractors: 4}}
  market1501: {{}}
victims:
  toy: {{use: "{TOY}:ToyVictim"}}
attacks: [noise, tint, metric_fgsm, metric_pgd, sma, apgd]
""")
    result = reid_attack_bench.run(
        suite, data_root=market, out=tmp_path / "out", store=tmp_path / "store", progress=False
    )
    columns = ["dataset_a", "dataset_b", "target", "attacks", "controls"]
    assert result.conclusions.orders[columns].to_numpy().tolist() == [["market1501", "rush", "toy", 6, 2]]
