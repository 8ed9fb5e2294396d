"""A submission whose victim is probed otherwise here: rounding of another machine is no reason to refuse it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

import reid_attack_bench
from reid_attack_bench.jobs.submission.card import card_template
from reid_attack_bench.jobs.submission.opened import opened
from reid_attack_bench.jobs.submission.pack import pack
from reid_attack_bench.jobs.submission.trusted import Given
from reid_attack_bench.jobs.submission.verify import verified
from reid_attack_bench.steps import victim as victim_steps
from reid_attack_bench.store import Store
from tests.conftest import TOY, tiny_document
from tests.test_pipeline import Silent


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A submission of a ready victim, attacked from itself and from another."""
    tiny = tiny_document() | {"attacks": {"metric_pgd": {"epsilon": 8, "options": {"steps": 1}}}}
    tiny["datasets"] = {"plaza": tiny["datasets"]["plaza"]}
    tiny["victims"] = {
        name: {"use": f"{TOY}:ToyVictim", "options": {"seed": seed}} for name, seed in (("one", 1), ("two", 2))
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny, sort_keys=False))
    run = reid_attack_bench.run(tmp_path / "tiny.yaml", out=tmp_path / "run", store=tmp_path / "store", progress=False)
    card = yaml.safe_load(card_template(run.results, "one"))
    card |= {"paper": "none", "code": "none", "licence": "MIT", "contact": "me", "trained_on": ["none"]}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    return pack(run.results, Store(run.store), "one", tmp_path / "card.yaml", tmp_path / "one.zip")


def test_another_probe_is_said_and_decides_nothing(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(dict.fromkeys(("one", "two"), f"{TOY}:ToyVictim"))
    with opened(packed, given, None) as submission:
        keys = {cell.rank_key for cell in submission.plan.cells}
        assert not any("beside its file" in line for line in submission.unsaid)
    monkeypatch.setattr(victim_steps, "probe", lambda victim: "0123456789abcdef")
    with opened(packed, given, None) as submission:
        assert {cell.rank_key for cell in submission.plan.cells} == keys
        said = [line for line in submission.unsaid if "beside its file and weights" in line]
        assert [line.split()[5] for line in said] == ["one", "two"]
        found = verified(submission, torch.device("cpu"), Silent())
    assert found.wrong == []
    assert all(again.share == 1 for again in found.again)
