"""Metrics of the tables: name, unit, direction, bounds and computation of each.

To add a metric, write its function in a file of this package and add one row to CATALOGUE. Columns, reports and pages
follow. For a metric of images, also raise the version of step "measure", so that stored runs are measured again.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from reid_attack_bench.metrics.checkerboard import checkerboard_energy
from reid_attack_bench.metrics.colour import ciede2000
from reid_attack_bench.metrics.lpips import Lpips
from reid_attack_bench.metrics.perturbation import change
from reid_attack_bench.metrics.ssim import ssim_and_ms_ssim

Group = Literal[
    "ranking", "comparison", "verification", "evasion", "targeted", "detection", "visibility", "cost", "victim"
]


@dataclass(frozen=True)
class ImagePair:
    """A batch of clean and adversarial images.

    Attributes:
        clean, adversarial: uint8 RGB N×H×W×3, as stored.
        before, after: the same as float RGB N×3×H×W in [0, 1], on the device where metrics are computed.
        lpips: the network of LPIPS, or None without its weights.
    """

    clean: np.ndarray
    adversarial: np.ndarray
    before: Tensor
    after: Tensor
    lpips: Lpips | None = None


Compute = Callable[[ImagePair], Mapping[str, "Tensor | np.ndarray"]]
"""Function that returns name → N values; metrics that share computation share one function."""


@dataclass(frozen=True)
class Measure:
    """One metric of the tables.

    Attributes:
        name: column of the CSV files.
        label: name in reports and plots.
        description: definition, one sentence without a full stop.
        group: "ranking" (one victim, with and without an attack), "comparison" (the same, as other code defines it:
            nothing is ordered or claimed by it), "verification" (the same, for a threshold on the distance),
            "evasion" (what an attack takes away), "targeted" (of attacks that impersonate), "detection" (one victim
            under attack),
            "visibility" (adversarial images), "cost" (crafting one adversarial image) or "victim" (a victim without
            images of a data set).
        unit: "%", "1/255", "pixels", "passes", "queries", or empty for a number without unit.
        higher_is_better: from the victim's side; for visibility from the attack's side, which should be invisible;
            None if neither direction is better.
        low, high: bounds; None if unbounded.
        digits: digits after the decimal point in reports.
        interval: whether columns NAME_low and NAME_high hold its 95 % bootstrap interval by identity.
        compute: computes it for a batch of images; group "visibility" only.
    """

    name: str
    label: str
    description: str
    group: Group
    unit: str = ""
    higher_is_better: bool | None = None
    low: float | None = 0.0
    high: float | None = None
    digits: int = 1
    interval: bool = False
    compute: Compute | None = None

    @property
    def csv_digits(self) -> int:
        """Digits after the decimal point in CSV files."""
        return 2 if self.unit == "%" or self.group == "cost" else 4

    @property
    def text_digits(self) -> int:
        """Digits after the decimal point of a mean or a difference in a report."""
        return 1 if self.unit == "%" else 4


def _change(pair: ImagePair) -> Mapping[str, np.ndarray]:
    return dict(change(pair.clean, pair.adversarial))  # type: ignore[arg-type]  # a TypedDict of arrays


def _similarity(pair: ImagePair) -> Mapping[str, Tensor]:
    return dict(zip(("ssim", "ms_ssim"), ssim_and_ms_ssim(pair.before, pair.after), strict=True))


def _colour(pair: ImagePair) -> Mapping[str, np.ndarray]:
    return {"ciede2000": ciede2000(pair.clean, pair.adversarial)}


def _lpips(pair: ImagePair) -> Mapping[str, Tensor]:
    return {} if pair.lpips is None else {"lpips": pair.lpips(pair.before, pair.after)}


def _checkerboard(pair: ImagePair) -> Mapping[str, Tensor]:
    return {"grid": checkerboard_energy(pair.after - pair.before)}


def _percent(name: str, label: str, description: str, *, group: Group = "ranking", interval: bool = False) -> Measure:
    return Measure(name, label, description, group, "%", higher_is_better=True, high=100.0, interval=interval)


def _evasion(name: str, label: str, description: str, *, low: float | None = 0.0, interval: bool = False) -> Measure:
    return Measure(
        name, label, description, "evasion", "%", higher_is_better=False, low=low, high=100.0, interval=interval
    )


def _targeted(name: str, label: str, description: str, *, interval: bool = False) -> Measure:
    return Measure(name, label, description, "targeted", "%", higher_is_better=False, high=100.0, interval=interval)


CATALOGUE: tuple[Measure, ...] = (
    _percent("rank1", "Rank-1", "share of queries whose nearest gallery image has the right identity", interval=True),
    _percent("rank5", "Rank-5", "share of queries with the right identity among the 5 nearest gallery images"),
    _percent("rank10", "Rank-10", "share of queries with the right identity among the 10 nearest gallery images"),
    _percent("rank20", "Rank-20", "share of queries with the right identity among the 20 nearest gallery images"),
    _percent("mAP", "mAP", "mean over queries of the average precision", interval=True),
    _percent("mINP", "mINP", "mean over queries of the inverse negative penalty (Ye et al., TPAMI 2021)"),
    _percent(
        "mAP_trapezoid", "mAP by the trapezoid rule",
        "mAP by the Matlab code of Market-1501 (Zheng et al., ICCV 2015), for comparison with values that such code "
        "computed; nothing is ordered by it",
        group="comparison",
    ),
    *(
        _percent(
            f"tpr_fpr1e{power}", f"TPR at FPR 10{sign}",
            f"share of genuine pairs nearer than a threshold that accepts at most one in {10**power:,} clean "
            "impostor pairs, as for a tracker; empty with fewer impostor pairs than that",
            group="verification",
        )
        for power, sign in ((3, "⁻³"), (2, "⁻²"))
    ),
    *(
        _evasion(
            f"success{k}", f"Success rate at {k}",
            f"of the queries whose clean version has the right identity at rank {k} or better, the share that lost it; "
            "a rejected query has lost it",
            interval=k == 1,
        )
        for k in (1, 10)
    ),
    *(
        _evasion(f"relative_drop_{name}", f"Relative drop of {label}", f"{label} lost, in % of the clean one", low=None)
        for name, label in (("rank1", "Rank-1"), ("mAP", "mAP"))
    ),
    _targeted("target_rank1", "Targeted Rank-1", "share of queries whose nearest gallery image is of the target",
              interval=True),
    _targeted("target_rank5", "Targeted Rank-5", "share of queries with the target among the 5 nearest gallery images"),
    _targeted(
        "target_rank10", "Targeted Rank-10", "share of queries with the target among the 10 nearest gallery images"
    ),
    _targeted("target_mAP", "Targeted mAP", "mean over queries of the average precision of the target identity",
              interval=True),
    *(
        _targeted(
            f"asr{k}", f"ASR@{k}",
            f"share of queries with the target among the {k} nearest gallery images, of those whose clean version does "
            "not have it there",
        )
        for k in (1, 5, 10)
    ),
    _percent("rejected", "Rejected queries", "share of queries that the detector rejected", group="detection"),
    _percent("rank1_as_clean", "Rank-1, rejected as clean",
             "Rank-1 where a query that the detector rejected counts as its clean version, not as a miss",
             group="detection"),
    _percent("mAP_as_clean", "mAP, rejected as clean",
             "mAP where a query that the detector rejected counts as its clean version, not as a miss",
             group="detection"),
    Measure(
        "linf", "L∞ (1/255)", "largest change of a colour value, mean over images", "visibility",
        "1/255", False, high=255.0, digits=2, compute=_change,
    ),
    Measure(
        "l2", "L2", "Euclidean norm of the perturbation, colour values in [0, 1], mean over images", "visibility",
        "", False, digits=2, compute=_change,
    ),
    Measure(
        "pixels_changed", "Changed pixels", "number of pixels with any change, mean over images", "visibility",
        "pixels", False, digits=0, compute=_change,
    ),
    Measure(
        "ssim", "SSIM", "structural similarity to the clean image (Wang et al., 2004), 1 for no change", "visibility",
        "", True, low=-1.0, high=1.0, digits=3, compute=_similarity,
    ),
    Measure(
        "ms_ssim", "MS-SSIM", "multi-scale structural similarity (Wang et al., 2003), 1 for no change", "visibility",
        "", True, low=-1.0, high=1.0, digits=3, compute=_similarity,
    ),
    Measure(
        "ciede2000", "CIEDE2000",
        "difference of colours as people see it (Sharma et al., 2005), mean over pixels, 0 for no change; about 1 is "
        "just visible",
        "visibility", "", False, digits=2, compute=_colour,
    ),
    Measure(
        "lpips", "LPIPS", "learned perceptual distance, AlexNet (Zhang et al., CVPR 2018), 0 for no change",
        "visibility", "", False, digits=3, compute=_lpips,
    ),
    Measure(
        "grid", "Checkerboard energy",
        "share of the perturbation's spectral energy at the frequencies of a grid of period 2 and 4, less what "
        "neighbouring frequencies hold: 1 for a pure grid, about 0 for white or smooth noise (column grid)",
        "visibility", "", None, low=-1.0, high=1.0, digits=3, compute=_checkerboard,
    ),
    Measure(
        "forward_passes", "Forward passes",
        "forward passes of single images through the source to craft one adversarial image", "cost", "passes",
    ),
    Measure(
        "backward_passes", "Backward passes",
        "backward passes of single images through the source to craft one adversarial image", "cost", "passes",
    ),
    Measure(
        "queries_per_image", "Queries", "queries of a query attack to craft one adversarial image", "cost", "queries",
    ),
    Measure(
        "zero_gradient", "Zero gradient", "share of image values without any gradient, on two random images", "victim",
        "", False, high=1.0, digits=3,
    ),
)  # fmt: skip
"""All metrics, in the order of the columns."""


def of_group(*groups: Group) -> list[Measure]:
    """Metrics of the given groups, in the order of CATALOGUE."""
    return [measure for measure in CATALOGUE if measure.group in groups]


def ranking_names() -> list[str]:
    return [measure.name for measure in of_group("ranking")]


def clean_and_attacked() -> list[Measure]:
    """Metrics of a victim that are given without an attack, under attack, and as the drop between the two."""
    return of_group("ranking", "comparison", "verification")


def interval_columns(group: Group = "ranking") -> list[str]:
    """Columns NAME_low and NAME_high of every metric that has an interval."""
    return [f"{measure.name}_{end}" for measure in of_group(group) if measure.interval for end in ("low", "high")]


def targeted_columns() -> list[str]:
    """Columns of matrix.csv that only attacks that impersonate have; no success rate without an attack."""
    names = [measure.name for measure in of_group("targeted")]
    before = [f"clean_{name}" for name in names if name.startswith("target_")]
    return [*before, *names, *interval_columns("targeted")]


def cell_columns() -> list[str]:
    """Metric columns of matrix.csv. clean_NAME is the value without attack, drop_NAME is clean_NAME − NAME."""
    both = [measure.name for measure in clean_and_attacked()]
    return [
        *(f"clean_{name}" for name in both), *both, *(f"drop_{name}" for name in both), *interval_columns(),
        *(measure.name for measure in of_group("evasion")), *interval_columns("evasion"),
        *targeted_columns(), *(measure.name for measure in of_group("detection", "visibility", "cost")),
    ]  # fmt: skip


def comparable() -> tuple[str, ...]:
    """Columns of matrix.csv that a claim of a suite may compare."""
    both = [measure.name for measure in of_group("ranking", "verification")]
    others = [measure.name for measure in of_group("evasion", "targeted", "detection", "visibility", "cost")]
    return (*both, *(f"drop_{name}" for name in both), *others)


def measure_of(column: str) -> Measure | None:
    """Metric of a table column, such as mAP for "worst_e8_mAP_low"; None for columns without a metric."""
    return _parsed(column, CATALOGUE)


@functools.lru_cache(maxsize=10_000)
def _parsed(column: str, catalogue: tuple[Measure, ...]) -> Measure | None:
    known = {measure.name: measure for measure in catalogue}
    found = re.search(rf"(^|_)({'|'.join(known)})(_a|_b|_change)?(_low|_high)?$", column)
    if found is None:
        return None
    measure = known[found[2]]
    return measure if measure.unit == "%" or column == measure.name else None
