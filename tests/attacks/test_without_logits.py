"""Attacks on logits take a form of their own for a source that has none, and a suite picks it by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from reid_attack_bench.attacks.gap import GAP
from reid_attack_bench.attacks.metric import MetricFGSM, MetricPGD
from reid_attack_bench.attacks.misranking import MisRanking
from reid_attack_bench.attacks.pgd import FGSM, PGD
from reid_attack_bench.contracts import Batch, FitContext, ThreatModel, TrainingData, distances, to_float
from tests.conftest import TOY
from tests.plugins.toy import WithoutLogits
from tests.test_pipeline import run_here


def test_the_forms_keep_the_settings_that_they_share() -> None:
    assert FGSM(diversity=0.5).without_logits() == MetricFGSM(diversity=0.5)
    form = PGD(steps=7, step_size=1.5, momentum=1.0, kernel=5, objective="least_likely").without_logits()
    assert form == MetricPGD(steps=7, step_size=1.5, momentum=1.0, kernel=5)
    assert GAP(width=8).without_logits() == GAP(width=8, objective="embedding")
    assert MisRanking(width=8).without_logits() == MisRanking(width=8, misclassification_weight=0)
    assert MisRanking(misranking_weight=0).without_logits() is None
    for attack in (FGSM(), PGD(), GAP(), MisRanking()):
        assert "logits" in attack.needs
        form = attack.without_logits()
        assert form is not None
        assert form.needs == {"gradients"}
        assert form.steps == attack.steps


def test_gap_on_the_embedding_moves_it_more_than_an_unfitted_generator() -> None:
    source, rng = WithoutLogits().eval().requires_grad_(False), np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 32, 16, 3), dtype=np.uint8)
    data = TrainingData("toys", images, np.repeat(np.arange(6), 4), np.zeros(24, np.int64))

    def moved(steps: int) -> float:
        attack = GAP(objective="embedding", width=4, batch=8, steps=steps, learning_rate=0.01)
        context = FitContext(torch.device("cpu"), torch.Generator().manual_seed(0))
        state = attack.fit(source, data, ThreatModel(8), context)
        clean = to_float(images)
        crafted = attack.craft(source, Batch(clean), ThreatModel(8), torch.Generator(), state=state)
        return float(distances(source.embed(crafted), source.embed(clean), "cosine").diag().mean())

    assert moved(40) > 2 * moved(1)


@pytest.mark.e2e
def test_a_suite_crafts_all_of_them_on_a_source_without_logits(tiny, tmp_path: Path) -> None:
    small = {"width": 4, "steps": 4}
    pairs = {"batch_identities": 2, "batch_instances": 2, "discriminator_width": 4, "held_out": 0, "residual_blocks": 1}
    tiny["victims"] = {"bare": {"use": f"{TOY}:WithoutLogits"}}
    tiny["datasets"] = {"plaza": tiny["datasets"]["plaza"]}
    tiny["attacks"] = {
        "fgsm": {},
        "pgd": {"options": {"steps": 2}},
        "gap": {"options": {**small, "batch": 4}},
        "misranking": {"options": {**small, **pairs}},
    }
    plan, outcome, _ = run_here(tiny, tmp_path)
    assert not outcome.failed
    assert [cell.attack for cell in plan.cells] == list(tiny["attacks"])
    assert all(cell.rank_key and not cell.impossible for cell in plan.cells)
    assert {cell.needs for cell in plan.cells} == {("gradients",)}
