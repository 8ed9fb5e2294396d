"""Claims of a suite tested on a run: differences between two attacks, with an interval over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.metrics.catalogue import Measure, comparable, measure_of
from reid_attack_bench.report.results import CellRow, Results, Setting
from reid_attack_bench.suites.suite import Claim, Contender

Verdict = Literal["confirmed", "not confirmed", "undecided"]

Place = tuple[str, str, str]
"""Source, target, data set."""

Values = dict[int, dict[Place, list[tuple[float, float]]]]
"""Seed → place → (controlled measure, or 0; measure) for each threat model."""

_CURVE_POINTS = 33


@dataclass(frozen=True)
class ClaimResult:
    """A claim of the suite and its result on a run.

    Attributes:
        claim, measure, at_equal, relation: see suites.suite.Claim.
        lower, higher: names of the two sides.
        lower_mean, higher_mean: their means over places and seeds; with `at_equal`, over the range covered by both.
        difference: mean over seeds of higher − lower, claimed to be positive; NaN without values.
        low, high: its 95 % t-interval over seeds; NaN with fewer than two.
        seeds, places: number of seeds and of (source, target, data set) compared.
        verdict: "confirmed" where the interval lies above 0, "not confirmed" where it lies below, else "undecided".
        reason: why there is no interval; empty if there is one.
    """

    claim: str
    lower: str
    higher: str
    measure: str
    at_equal: str
    relation: str
    lower_mean: float
    higher_mean: float
    difference: float
    low: float
    high: float
    seeds: int
    places: int
    verdict: Verdict
    reason: str = ""


def evaluate_claims(results: Results) -> list[ClaimResult]:
    """Results of the claims of the run's suite, in the order of the suite.

    For each seed the measure is averaged over the cells of the claim's relation that succeeded for both sides and all
    seeds. The interval is over the differences per seed: it reflects the randomness of the attack, with victims and
    data fixed. A side with a single seed is compared with every seed of the other.
    """
    return [_evaluate(claim, results.cells) for claim in results.record.suite.findings]


def table(results: list[ClaimResult]) -> pd.DataFrame:
    """One row per claim, for findings.csv, rounded to the CSV digits of the measure."""
    table = pd.DataFrame([vars(each) for each in results])
    digits = table["measure"].map(lambda name: _measure(name).csv_digits)
    for name in ("lower_mean", "higher_mean", "difference", "low", "high"):
        table[name] = [round(value, places) for value, places in zip(table[name], digits, strict=True)]
    return table


WORDS = ("claim", "lower", "higher", "measure", "difference", "seeds", "cells", "verdict")


def in_words(each: ClaimResult) -> list[str]:
    """A claim as texts of a report table, in the order of WORDS."""
    measure = each.measure + (f" at equal {each.at_equal}" if each.at_equal else "")
    digits = _measure(each.measure).text_digits
    sides = [
        name + ("" if mean != mean else f": {mean:.{digits}f}")
        for name, mean in ((each.lower, each.lower_mean), (each.higher, each.higher_mean))
    ]
    shown = "" if each.difference != each.difference else f"{each.difference:.{digits}f}"
    if each.low == each.low:
        shown += f" [{each.low:.{digits}f}, {each.high:.{digits}f}]"
    verdict = each.verdict + (f" ({each.reason})" if each.reason else "")
    return [each.claim, *sides, f"{measure}, {each.relation}", shown, str(each.seeds), str(each.places), verdict]


def _measure(column: str) -> Measure:
    measure = measure_of(column)
    if measure is None:
        raise BenchError(f"unknown measure '{column}': {nearest(column, comparable())}")
    return measure


def t_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Student's t-interval of the mean of independent `values`; NaN with fewer than two."""
    if len(values) < 2:
        return math.nan, math.nan
    half = float(stats.t.ppf(0.5 + level / 2, len(values) - 1)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half


def _evaluate(claim: Claim, cells: Sequence[CellRow]) -> ClaimResult:
    sides = [_values(claim, side, cells) for side in (claim.lower, claim.higher)]
    names = [_name(side) for side in (claim.lower, claim.higher)]
    seeds = _common_seeds(*sides)
    lower, higher = (_for_seeds(side, seeds) for side in sides)
    places = sorted(set.intersection(*(set(side[seed]) for side in (lower, higher) for seed in seeds))) if seeds else []
    pairs = np.empty((0, 2))
    reason = "" if places else "no cell succeeded for both"
    if places:
        compared = [_compare(_mean(lower[seed], places), _mean(higher[seed], places)) for seed in seeds]
        if None in compared:
            reason = f"the two never reach the same {claim.at_equal}"
        else:
            pairs = np.array(compared)
    differences = pairs[:, 1] - pairs[:, 0]
    low, high = t_interval(differences)
    if len(differences) == 1:
        reason = "one seed gives no interval"
    verdict: Verdict = "confirmed" if low > 0 else "not confirmed" if high < 0 else "undecided"
    means = pairs.mean(axis=0) if len(pairs) else np.full(2, math.nan)
    return ClaimResult(
        claim=claim.claim,
        lower=names[0],
        higher=names[1],
        measure=claim.measure,
        at_equal=claim.at_equal,
        relation=claim.relation,
        lower_mean=float(means[0]),
        higher_mean=float(means[1]),
        difference=float(means[1] - means[0]),
        low=low,
        high=high,
        seeds=len(seeds),
        places=len(places),
        verdict=verdict,
        reason=reason,
    )


def _values(claim: Claim, contender: Contender, cells: Sequence[CellRow]) -> Values:
    """Values of one side; places that lack a threat model are left out."""
    settings = [_setting(contender, threat) for threat in contender.threats]
    found: dict[int, dict[Place, dict[Setting, tuple[float, float]]]] = {}
    for cell in cells:
        setting = cell.setting
        if setting not in settings or cell.relation != claim.relation or not cell.ok:
            continue
        held = cell.value(claim.at_equal) if claim.at_equal else 0.0
        value = cell.value(claim.measure)
        if math.isnan(held) or math.isnan(value):
            continue
        place = (cell.source, cell.target, cell.dataset)
        found.setdefault(cell.seed, {}).setdefault(place, {})[setting] = (held, value)
    return {
        seed: {
            place: [found_at[setting] for setting in settings]
            for place, found_at in places.items()
            if len(found_at) == len(settings)
        }
        for seed, places in found.items()
    }


def _setting(contender: Contender, threat: ThreatModel) -> Setting:
    return Setting.of(contender.attack, threat)


def _name(contender: Contender) -> str:
    threats = [_setting(contender, threat) for threat in contender.threats]
    return f"{threats[0].variant}, ε = {'/'.join(str(each.epsilon) for each in threats)}"


def _common_seeds(lower: Values, higher: Values) -> list[int]:
    if len(lower) == 1 and higher:
        return sorted(higher)
    if len(higher) == 1 and lower:
        return sorted(lower)
    return sorted(set(lower) & set(higher))


def _for_seeds(side: Values, seeds: list[int]) -> Values:
    alone = next(iter(side.values())) if len(side) == 1 else None
    return {seed: side[seed] if alone is None else alone for seed in seeds}


def _mean(places: Mapping[Place, list[tuple[float, float]]], chosen: list[Place]) -> np.ndarray:
    """Mean over the chosen places: threat models × (controlled measure, measure)."""
    return np.mean([places[place] for place in chosen], axis=0)


def _compare(lower: np.ndarray, higher: np.ndarray) -> tuple[float, float] | None:
    """Measures of both sides: single values, or means over the range of the controlled measure common to both."""
    if len(lower) == len(higher) == 1:
        return float(lower[0, 1]), float(higher[0, 1])
    curves = [curve[np.argsort(curve[:, 0])] for curve in (lower, higher)]
    start, end = max(curve[0, 0] for curve in curves), min(curve[-1, 0] for curve in curves)
    if start > end:
        return None
    at = np.linspace(start, end, _CURVE_POINTS)
    first, second = (float(np.interp(at, curve[:, 0], curve[:, 1]).mean()) for curve in curves)
    return first, second
