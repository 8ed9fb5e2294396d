"""Victims that look robust and are not, and honest ones, through `evaluate` with the small protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from reid_attack_bench.contracts import FitContext, TrainingData, Victim
from reid_attack_bench.data import catalogue
from reid_attack_bench.jobs.run import evaluate
from reid_attack_bench.report.analysis.audit import Flag, audit
from reid_attack_bench.report.rows import is_unverified, rows
from reid_attack_bench.victims.defences.adversarial_training import AdversarialTraining
from reid_attack_bench.victims.defences.detector import SqueezingDetector
from reid_attack_bench.victims.defences.input_defences import BitDepth, Jpeg, RandomResizePad
from tests.plugins.fakes import FAKES, trained

PEOPLE = {"train_identities": 48, "test_identities": 24, "images_per_camera": 1, "queries_per_identity": 2}
SIZE = (64, 32)
BROKEN = 10.0  # mAP in %

FEW = ("HonestInSmallBatches", "Remembers", "WrongStraightThrough")
"""Fakes of every run of the tests; the others are slow."""


@pytest.fixture(scope="module")
def data() -> TrainingData:
    def allocate(part: str, shape: tuple[int, ...]) -> np.ndarray:
        return np.empty(shape, np.uint8)

    source = catalogue.source("plaza", PEOPLE, size=SIZE, seed=0, data_root=None)
    train = source.load(lambda *_: None, allocate)["train"]
    labels = np.unique(train.identities, return_inverse=True)[1].astype(np.int64)
    return TrainingData("plaza", train.images, labels, train.cameras)


@pytest.fixture(scope="module")
def base(data: TrainingData) -> Victim:
    return trained(data)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Victim], tuple[dict[str, Any], list[Flag]]]:
    """Row of the leaderboard and flags of a victim under the small protocol; the data and its controls are shared."""
    folder: Path = tmp_path_factory.mktemp("audit")
    suite = folder / "miniature.yaml"
    document = {
        "name": "miniature", "image_size": list(SIZE), "batch_size": 32, "headline_epsilon": 8,
        "datasets": {"plaza": PEOPLE}, "protocol": "reid-standard-2-small", "attacks": {},
    }  # fmt: skip
    suite.write_text(yaml.safe_dump(document))

    def judge(victim: Victim) -> tuple[dict[str, Any], list[Flag]]:
        name = type(victim).__name__
        result = evaluate(
            victim, suite, out=folder / name, store=folder / "store", device="cpu", progress=False, seed=0
        )  # fmt: skip
        assert result.failures == ()
        (row,) = rows(result.leaderboard)
        return row, audit(result.results)

    return judge


def red(flags: list[Flag]) -> list[str]:
    return [f"{flag.name}: {flag.evidence}" for flag in flags if flag.severity == "red"]


@pytest.mark.e2e
def test_an_undefended_network_is_broken_and_has_no_flag(base: Victim, judged) -> None:
    row, flags = judged(base)
    assert row["clean_mAP"] > 60
    assert row["worst_e8_mAP"] < BROKEN
    assert red(flags) == []
    assert row["audit"] == ""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.e2e if name in FEW else pytest.mark.slow) for name in FAKES]
)
def test_no_fake_gets_through(name: str, base: Victim, judged) -> None:
    """It is flagged, or broken by the attacks."""
    row, flags = judged(FAKES[name](base, "a defence that pretends"))
    assert row["clean_mAP"] > 60 or name == "RefusesEverything"
    assert is_unverified(row) == bool(red(flags))
    assert is_unverified(row) or row["worst_e8_mAP"] < BROKEN, flags


@pytest.mark.slow
@pytest.mark.parametrize("name", ["k winners", "jpeg", "bit depth", "resize", "detector", "adversarial training"])
def test_no_honest_victim_is_flagged(name: str, base: Victim, data: TrainingData, judged) -> None:
    """Shipped defences are attacked by those who know them, and may be broken by them."""
    context = FitContext(torch.device("cpu"), torch.Generator().manual_seed(0))
    hardened, detector = AdversarialTraining("metric", steps=200, batch_identities=8), SqueezingDetector()
    victim = {
        "k winners": lambda: trained(data, winners=0.1),
        "jpeg": lambda: Jpeg().defend(base),
        "bit depth": lambda: BitDepth().defend(base),
        "resize": lambda: RandomResizePad().defend(base),
        "detector": lambda: detector.defend(base, detector.fit(base, data, context)),
        "adversarial training": lambda: hardened.defend(base, hardened.fit(base, data, context)),
    }[name]()
    row, flags = judged(victim.eval().requires_grad_(False))
    assert row["clean_mAP"] > 40
    assert red(flags) == [], row["worst_e8_mAP"]
