"""The victim with side information that the documentation shows: through check-victim, and through a run."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

import reid_attack_bench
from reid_attack_bench import registry
from reid_attack_bench.cli import main as cli
from reid_attack_bench.contracts import bound, to_float, with_cameras
from tests.plugins.camera_aware import coloured
from tests.test_docs import blocks, read


@pytest.fixture
def sie(tmp_path: Path) -> str:
    (shown,) = [block.text for block in blocks(read("add-victim.md")) if block.title == "sie.py"]
    (tmp_path / "sie.py").write_text(shown)
    return f"{tmp_path / 'sie.py'}:SmallTransReID"


def test_side_information_is_added_to_the_tokens(sie: str) -> None:
    """As in TransReID: 3 times the embedding of the camera; an unseen camera has the mean, and so has −1."""
    victim = registry.find("victim", sie).build({}).eval().requires_grad_(False)
    images = to_float(coloured(torch.tensor([0, 1, 2, 0, 1]).numpy(), torch.arange(5).numpy()))
    tokens = (victim.patches(2 * images - 1)).flatten(2).transpose(1, 2) + victim.position
    mean = victim.sie_embed.mean(dim=0)
    side = torch.stack([victim.sie_embed[0], victim.sie_embed[2], mean, mean, victim.sie_embed[1]])
    expected = victim.layer(tokens + 3.0 * side[:, None, :]).mean(dim=1)
    with torch.no_grad():
        found = bound(victim).embed(with_cameras(images, torch.tensor([0, 2, -1, 9, 1])))
    torch.testing.assert_close(found, expected)


@pytest.mark.e2e
def test_check_victim_reports_what_a_wrong_camera_does(sie: str) -> None:
    result = CliRunner().invoke(cli.cli, ["check-victim", sie, "--suite", "minute", "--json"], catch_exceptions=False)
    found = {each["name"]: each for each in json.loads(result.output)["findings"]}
    assert result.exit_code == 0, result.output
    assert [each for each in found.values() if each["level"] == "fault"] == []
    assert found["cameras"]["level"] == "ok"
    assert "a wrong camera moves an embedding by up to" in found["cameras"]["evidence"]


@pytest.mark.e2e
def test_it_is_evaluated(sie: str, tiny: dict, write_suite, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    del tiny["datasets"]["station"]
    tiny["victims"] = {
        "sie": {"use": sie},
        "jpeg": {"use": "jpeg", "defends": "sie"},
    }
    tiny["attacks"] = {
        "metric_pgd": {"epsilon": 8, "options": {"steps": 2}},
        "adaptive": {"use": "metric_pgd", "epsilon": 8, "options": {"steps": 2}, "adaptive": True},
    }
    result = reid_attack_bench.run(write_suite(tiny), store=tmp_path / "store", out=tmp_path / "out", progress=False)
    assert not result.failures
    assert {"sie", "jpeg"} <= set(pd.DataFrame(result.clean)["victim"])
    victim = registry.find("victim", sie).build({})
    live = reid_attack_bench.evaluate(
        victim, suite=write_suite(tiny), store=tmp_path / "store", out=tmp_path / "live", progress=False
    )
    assert not live.failures
    values = dict(zip(live.clean["victim"], live.clean["mAP"], strict=True))
    assert values["SmallTransReID"] == values["sie"], "in memory it is told cameras as in a file"
    images = tmp_path / "images"
    images.mkdir()
    from PIL import Image

    Image.new("RGB", (32, 64), (90, 120, 60)).save(images / "a.png")
    words = ["craft", "--attack", "metric_pgd", "--option", "steps=1", "--source", sie, "--images", str(images)]
    said = CliRunner().invoke(cli.cli, [*words, "--out", str(tmp_path / "crafted")], catch_exceptions=False)
    assert said.exit_code == 0, said.output
    assert "uses cameras, and images of a folder have none: it took them for unknown (-1)" in said.output
