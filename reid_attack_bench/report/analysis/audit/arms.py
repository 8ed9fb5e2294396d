"""Arms: an attack under a threat model on one victim, over its seeds; differences between two of them."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from reid_attack_bench.metrics.bootstrap import interval
from reid_attack_bench.report import rows
from reid_attack_bench.report.results import CellRow, Results, Setting

MARGIN = 1.0
"""Smallest relevant difference, in points of mAP: about one query in a hundred, and more than rounding to 8 bits and a
random start change."""

BROKEN = 10.0
"""mAP in % below which a victim counts as broken: no claim of robustness is left that a stronger attack could lower."""


@dataclass(frozen=True)
class Arm:
    """An attack under a threat model on a victim.

    A query that a detector refuses counts as its clean version: an attack that is refused has found nothing.

    Attributes:
        family, steps: as in `CellRow`.
        per_seed: AP of each seed and query, S×N; NaN for a query without a match.
        rank1: Rank-1 in %, mean over seeds.
        identities: int N, of the queries.
    """

    setting: Setting
    source: str
    family: str
    steps: int
    cells: list[CellRow]
    per_seed: np.ndarray
    rank1: float
    identities: np.ndarray

    @functools.cached_property
    def ap(self) -> np.ndarray:
        """AP of each query, mean over seeds."""
        return self.per_seed.mean(axis=0)

    @functools.cached_property
    def mean_ap(self) -> float:
        return 100.0 * float(np.nanmean(self.ap))

    @property
    def broken(self) -> bool:
        return self.mean_ap <= BROKEN

    @property
    def epsilon(self) -> int:
        return self.setting.epsilon

    @property
    def pixels(self) -> int:
        return self.setting.pixels

    @property
    def adaptive(self) -> bool:
        return self.cells[0].adaptive > 0

    @property
    def own(self) -> bool:
        """An attack on the victim itself."""
        return self.cells[0].own

    @property
    def by_gradients(self) -> bool:
        return "gradients" in self.cells[0].needs

    @property
    def sees_gallery(self) -> bool:
        return "gallery" in self.cells[0].needs

    @property
    def iterative(self) -> bool:
        """An attack by gradients that optimises each image in several steps."""
        return self.by_gradients and bool(self.family) and self.steps > 1

    @property
    def name(self) -> str:
        return f"{self.setting.variant} at ε = {self.setting.epsilon}"


def arms_of(results: Results, cells: Iterable[CellRow]) -> list[Arm]:
    """The arms of `cells`, which succeeded on one victim and data set; sorted."""
    groups: dict[tuple[Setting, str], list[CellRow]] = {}
    for cell in cells:
        groups.setdefault((cell.setting, cell.source), []).append(cell)
    return [_arm(results, *place, group) for place, group in sorted(groups.items(), key=lambda item: item[0])]


def _arm(results: Results, setting: Setting, source: str, group: list[CellRow]) -> Arm:
    outcomes = [rows.outcome(results, cell.rank_key) for cell in group]
    ap = np.stack([np.where(each.valid, each.ap_as_clean, np.nan) for each in outcomes])
    hit = np.stack([np.where(each.valid, each.hit_as_clean, np.nan) for each in outcomes])
    rank1, identities = 100.0 * float(np.nanmean(hit)), outcomes[0].identities
    first = group[0]
    return Arm(setting, source, first.family, first.steps, group, ap, rank1, identities)


@dataclass(frozen=True)
class Difference:
    """mAP of one attack minus that of another, paired over queries, in points, with a 95 % interval by identity."""

    mean: float
    low: float
    high: float
    text: str

    @property
    def positive(self) -> bool:
        """Whether the difference is relevant and not by chance."""
        return self.mean > MARGIN and self.low > 0

    @property
    def clear(self) -> bool:
        """Whether all of its interval is relevant."""
        return self.low > MARGIN


def difference(results: Results, higher: Arm, lower: Arm) -> Difference:
    """The mAP that `higher` leaves minus that which `lower` leaves."""
    return _paired(results, higher.ap, lower)


def loss(results: Results, clean_ap: np.ndarray, arm: Arm) -> Difference:
    """The mAP without attack minus that which `arm` leaves; `clean_ap` as `Arm.ap`."""
    return _paired(results, clean_ap, arm)


def _paired(results: Results, higher: np.ndarray, lower: Arm) -> Difference:
    per_query = 100.0 * (higher - lower.ap)
    mean = float(np.nanmean(per_query))
    low, high = interval(per_query, lower.identities, seed=results.seed, exact=False)
    left = f"mAP {100.0 * float(np.nanmean(higher)):.1f} against {lower.mean_ap:.1f}"
    return Difference(mean, low, high, f"{left}, difference {mean:.1f} [{low:.1f}, {high:.1f}]")


def strongest(arms: Iterable[Arm]) -> Arm | None:
    """The arm that leaves the lowest mAP, or None."""
    return min(arms, key=lambda arm: arm.mean_ap, default=None)
