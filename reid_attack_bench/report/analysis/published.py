"""Published results of the Mis-Ranking paper (CVPR 2020, arXiv 2004.04199), matched to the cells of a run."""

from __future__ import annotations

import csv
import functools
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reid_attack_bench.report.record import models
from reid_attack_bench.report.results import CellRow, Results, Setting

ARCHITECTURES: Mapping[str, tuple[str, ...]] = {
    "IDE (ResNet-50)": ("ide", "resnet50"),
    "DenseNet-121": ("densenet121",),
    "Mudeep (Inception-V3)": ("mudeep",),
    "Mudeep": ("mudeep",),
    "AlignedReID": ("alignedreid", "aligned"),
    "PCB": ("pcb", "pcb_p6"),
    "HACNN": ("hacnn",),
    "CamStyle+Era (IDE)": ("camstyle",),
    "LSRO (DenseNet-121)": ("lsro",),
    "LSRO": ("lsro",),
    "HHL (IDE)": ("hhl",),
    "SPGAN (IDE)": ("spgan",),
}
"""Name of a model in the paper → victim labels or torchreid model names of the same architecture."""


DIFFERENCES = (
    "How the protocols differ: the released code of the paper makes adversarial images after the resize to the size of "
    "the network, never rounds them to 8 bits and lets them leave [0, 1], ranks seven of its ten victims by classifier "
    "logits, and chooses its generator on the test set; here images are made at the size of the suite, rounded and "
    "within the budget, then resized, and embeddings are ranked. Junk rule and average precision are the same (not the "
    "trapezoid rule)."
)
"""How the values of the paper were measured, and how those beside them were."""


@dataclass(frozen=True)
class Published:
    """A row of the paper's tables. rank1 … mAP in %; epsilon in 1/255, 0 without attack; pixels None for all."""

    table: str
    attack: str
    epsilon: int
    pixels: int | None
    source: str
    source_data: str
    target: str
    target_data: str
    rank1: float
    rank5: float
    rank10: float
    mAP: float  # noqa: N815  as in every table
    note: str


@functools.cache
def published() -> tuple[Published, ...]:
    """Rows of published.csv, as printed in the paper."""
    text = (importlib.resources.files("reid_attack_bench.report.analysis") / "published.csv").read_text(
        encoding="utf-8"
    )
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return tuple(_line(row) for row in csv.DictReader(lines))


def _line(row: dict[str, Any]) -> Published:
    percent = {name: float(row[name]) for name in ("rank1", "rank5", "rank10", "mAP")}
    budget = {"epsilon": int(row["epsilon"]), "pixels": int(row["pixels"]) if row["pixels"] else None}
    return Published(**{**row, **percent, **budget})


def result(results: Results, cell: CellRow) -> Published | None:
    """The published result with the attack label, epsilon, pixel budget, models and data sets of a cell, or None.

    None where one of the data sets has other numbers of images than the published one of its name.
    """
    if not cell.relation or not results.record.is_genuine(cell.dataset):
        return None
    setting = cell.setting
    for line in published():
        if setting != Setting(line.attack, line.epsilon, line.pixels or 0):
            continue
        source_data = line.target_data if cell.relation in ("white-box", "cross-model") else line.source_data
        if (
            line.target_data == cell.dataset
            and line.source_data == source_data
            and results.record.is_genuine(source_data)
            and _is_trained_on(results, cell.source, line.source_data)
            and _is(results, cell.source, line.source)
            and _is(results, cell.target, line.target)
        ):
            return line
    return None


def clean_result(results: Results, victim: str, dataset: str) -> Published | None:
    """The published result of a victim without attack on its training data set, or None."""
    if not results.record.is_genuine(dataset):
        return None
    for line in published():
        if line.epsilon == 0 and line.target_data == dataset and _is(results, victim, line.target):
            return line
    return None


def _is_trained_on(results: Results, victim: str, dataset: str) -> bool:
    """Whether a victim was trained on `dataset`; True for pretrained victims, whose training data is unknown."""
    model = models(results.record.suite).get(victim)
    return model is None or model.trained_on in ("", dataset)


def _is(results: Results, victim: str, model: str) -> bool:
    """Whether a victim's label or architecture matches the paper's `model`."""
    suite = results.record.suite
    known = models(suite).get(victim)
    label = known.label if known else victim
    arch = next((entry.options.get("arch", "") for entry in suite.victims if entry.label == label), "")
    return bool({label.lower(), str(arch).lower()} & set(ARCHITECTURES.get(model, ())))
