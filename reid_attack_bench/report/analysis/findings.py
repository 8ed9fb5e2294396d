"""Claims of a suite tested on a run: differences between two attacks, with an interval and a verdict.

Where a claim hangs on the seeds of its attacks, the interval is over seeds, with at least `FEWEST_SEEDS` of them for a
verdict; where no random number is in either attack, it is over the identities of the queries. Verdicts are by p-values
adjusted for the number of claims of the report (Holm).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.metrics.catalogue import Measure, comparable, measure_of, ranking_names
from reid_attack_bench.report.analysis import controls, significance
from reid_attack_bench.report.analysis.sides import Place, Side, common_seeds, of_attack, of_control
from reid_attack_bench.report.results import CellRow, Results
from reid_attack_bench.report.rows import outcome
from reid_attack_bench.suites.suite import CONTROL, Claim

Verdict = Literal["confirmed", "not confirmed", "undecided", "indicative"]

FEWEST_SEEDS = 8
"""Seeds of each attack that draws random numbers, below which a claim gets no verdict."""

_CURVE_POINTS = 33

_PER_QUERY = {"rank1": ("hit", 100.0), "mAP": ("ap", 100.0), "drop_rank1": ("hit", -100.0), "drop_mAP": ("ap", -100.0)}
"""Measure → field of PerQuery and its factor, for measures that are a mean over queries."""


@dataclass(frozen=True)
class ClaimResult:
    """A claim of the suite and its result on a run.

    Attributes:
        claim, measure, at_equal, relation: see suites.suite.Claim.
        lower, higher: names of the two sides.
        lower_mean, higher_mean: their means over places and seeds; with `at_equal`, over the range covered by both.
        difference: mean of higher − lower, claimed to be positive; NaN without values.
        low, high: its 95 % t-interval; NaN without two seeds, or two identities.
        seeds, places: number of seeds and of (source, target, data set) compared.
        identities: number of identities that the interval is over; 0 for an interval over seeds.
        p, p_holm: two-sided p-value of the paired t-test, and adjusted for the claims of the report; NaN for an
            indicative claim.
        seeds_needed: of an undecided claim, the number of seeds that would decide it at this mean and deviation, or
            "more than 1000"; empty for others.
        covers: what the interval covers, and what is fixed.
        verdict: "confirmed" where the adjusted p-value is below 5 % and the difference positive, "not confirmed" where
            it is negative, else "undecided"; "indicative" where the claim hangs on fewer than FEWEST_SEEDS seeds.
        reason: why there is no verdict or no interval; empty if there is one.
    """

    claim: str
    lower: str
    higher: str
    measure: str
    at_equal: str
    relation: str
    lower_mean: float = math.nan
    higher_mean: float = math.nan
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    seeds: int = 0
    places: int = 0
    identities: int = 0
    p: float = math.nan
    p_holm: float = math.nan
    seeds_needed: str = ""
    covers: str = ""
    verdict: Verdict = "undecided"
    reason: str = ""


def evaluate_claims(results: Results) -> list[ClaimResult]:
    """Results of the claims of the run's suite, in the order of the suite.

    The measure is averaged over the cells of the claim's relation that succeeded for both sides and all seeds.

    - A claim that hangs on seeds: one difference for each seed, and Student's t over them. A side with a single seed,
      a side with the same values at every seed, and the best control are compared with every seed of the other.
    - Two sides without a random number (the same values at two or more seeds, or the best control): one difference for
      each query, and Student's t over identities, since queries of one person are alike.
    """
    names = controls.control_names(results)
    evaluated = []
    for claim in results.record.suite.findings:
        ranked = claim.measure.removeprefix("drop_")
        best = controls.best_controls(results, ranked if ranked in ranking_names() else "mAP")
        sides = [of_attack(claim, side, results.cells) for side in (claim.lower, claim.higher)]
        if claim.lower.attack == CONTROL:
            sides[0] = of_control(claim.lower, sides[1], best, names)
        if claim.higher.attack == CONTROL:
            sides[1] = of_control(claim.higher, sides[0], best, names)
        evaluated.append(_evaluate(claim, sides[0], sides[1], results))
    return _judged(evaluated)


def table(results: list[ClaimResult]) -> pd.DataFrame:
    """One row per claim, for findings.csv, rounded to the CSV digits of the measure."""
    table = pd.DataFrame([vars(each) for each in results])
    digits = table["measure"].map(lambda name: _measure(name).csv_digits)
    for name in ("lower_mean", "higher_mean", "difference", "low", "high"):
        table[name] = [round(value, places) for value, places in zip(table[name], digits, strict=True)]
    for name in ("p", "p_holm"):
        table[name] = [float(f"{value:.3g}") for value in table[name]]
    return table


INTRODUCTION = (
    "Claims of the suite and whether this run confirms them. The difference is the higher side minus the lower, with a "
    "95 % t-interval; a claim states that it is positive. The interval is over seeds of the attack, or over the "
    "identities of the queries where no random number is in either side; all else is fixed. p is of the paired t-test, "
    "then adjusted for all claims here (Holm); the verdict is by the adjusted one at 5 %. A claim that hangs on fewer "
    f"than {FEWEST_SEEDS} seeds is indicative and gets no verdict. The best control is the one with the lowest value "
    "on the same queries, which favours it."
)

WORDS = ("claim", "lower", "higher", "measure", "difference", "interval over", "cells", "p, adjusted", "verdict")


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
    p = "" if each.p != each.p else f"{each.p:.2g}, {each.p_holm:.2g}"
    notes = [each.reason] if each.reason else []
    notes += [f"{each.seeds_needed} seeds would decide it"] if each.seeds_needed else []
    verdict = each.verdict + (f" ({'; '.join(notes)})" if notes else "")
    return [each.claim, *sides, f"{measure}, {each.relation}", shown, each.covers, str(each.places), p, verdict]


def _measure(column: str) -> Measure:
    measure = measure_of(column)
    if measure is None:
        raise BenchError(f"unknown measure '{column}': {nearest(column, comparable())}")
    return measure


def _evaluate(claim: Claim, lower: Side, higher: Side, results: Results) -> ClaimResult:
    """A claim without its adjusted p-value; verdict "indicative", or "undecided" until all claims are known."""
    found = ClaimResult(claim.claim, lower.name, higher.name, claim.measure, claim.at_equal, claim.relation)
    sides = (lower, higher)
    seeds = common_seeds(lower, higher)
    places = sorted(set.intersection(*(set(side.at(seed)) for side in sides for seed in seeds))) if seeds else []
    if not places:
        lacking = any(side.control and not side.cells for side in sides) and any(side.cells for side in sides)
        return replace(found, reason=controls.NO_CONTROL if lacking else "no cell succeeded for both")
    found = replace(found, seeds=len(seeds), places=len(places))
    compared = [_compare(*(_mean(side.at(seed), places, claim) for side in sides)) for seed in seeds]
    pairs = np.array([each for each in compared if each is not None])
    if len(pairs) < len(seeds):
        return replace(found, reason=f"the two never reach the same {claim.at_equal}")
    found = replace(found, lower_mean=float(pairs[:, 0].mean()), higher_mean=float(pairs[:, 1].mean()))
    if lower.fixed and higher.fixed:
        return _over_queries(found, claim, [side.at(seeds[0]) for side in sides], places, results)
    return _over_seeds(found, sides, seeds, pairs[:, 1] - pairs[:, 0])


def _over_seeds(found: ClaimResult, sides: Sequence[Side], seeds: list[int], differences: np.ndarray) -> ClaimResult:
    estimate = significance.over_values(differences)
    drawn = [side for side in sides if not side.fixed]
    fewest = min(drawn, key=lambda side: len(side.cells))
    found = replace(found, difference=estimate.mean, low=estimate.low, high=estimate.high)
    words = " and ".join(dict.fromkeys(side.attack for side in drawn if len(side.cells) > 1))
    if words:
        found = replace(found, covers=f"{len(seeds)} seeds of {words}; victims, data and queries fixed")
    count = min(len(seeds), len(fewest.cells))
    if count < FEWEST_SEEDS:
        has = f"{fewest.attack} has {count} seed{'s' * (count > 1)}, a verdict needs {FEWEST_SEEDS}"
        return replace(found, verdict="indicative", reason=has)
    return replace(found, p=estimate.p)


def _over_queries(
    found: ClaimResult,
    claim: Claim,
    sides: Sequence[dict[Place, list[CellRow]]],
    places: list[Place],
    results: Results,
) -> ClaimResult:
    """The mean over places of the paired difference of each query."""
    found = replace(found, difference=found.higher_mean - found.lower_mean, seeds=1)
    if claim.measure not in _PER_QUERY or claim.at_equal:
        return replace(
            found, verdict="indicative", reason="no seed changes it, and the measure is not compared query by query"
        )
    field, factor = _PER_QUERY[claim.measure]
    values, people = [], []
    for place in places:
        lower, higher = (outcome(results, side[place][0].rank_key) for side in sides)
        if len(lower.valid) != len(higher.valid):
            raise BenchError(f"rankings of {place[1]} on {place[2]} differ in their queries; run the suite again")
        valid = lower.valid.astype(bool) & higher.valid.astype(bool)
        change = getattr(higher, field).astype(float) - getattr(lower, field).astype(float)
        values.append(factor * change[valid])
        people.append(np.array([f"{place[2]} {identity}" for identity in lower.identities[valid]]))
    estimate = significance.over_clusters(values, people)
    return replace(
        found,
        difference=estimate.mean,
        low=estimate.low,
        high=estimate.high,
        identities=estimate.count,
        p=estimate.p,
        covers=f"{estimate.count} identities; no random number is in either side; victims and data fixed",
    )


def _judged(evaluated: list[ClaimResult]) -> list[ClaimResult]:
    """The claims with adjusted p-values and verdicts, and the seeds that the undecided ones would need."""
    tested = [index for index, each in enumerate(evaluated) if each.p == each.p]
    adjusted = significance.holm([evaluated[index].p for index in tested])
    undecided = sum(value >= significance.LEVEL for value in adjusted)
    judged = list(evaluated)
    for index, p_holm in zip(tested, adjusted, strict=True):
        each = evaluated[index]
        if p_holm < significance.LEVEL:
            verdict: Verdict = "confirmed" if each.difference > 0 else "not confirmed"
            judged[index] = replace(each, p_holm=p_holm, verdict=verdict)
        elif each.identities:
            judged[index] = replace(each, p_holm=p_holm, reason="more queries would be needed, seeds change nothing")
        else:
            needed = _needed(each, undecided)
            judged[index] = replace(each, p_holm=p_holm, seeds_needed=needed)
    return judged


def _needed(each: ClaimResult, undecided: int) -> str:
    """Seeds that would decide an undecided claim, at the level that Holm's correction leaves to the undecided ones."""
    deviation = significance.deviation_of(each.low, each.high, each.seeds)
    count = significance.seeds_needed(each.difference, deviation, significance.LEVEL / undecided)
    return f"more than {significance.MOST_SEEDS}" if count is None else str(count)


def _mean(cells: dict[Place, list[CellRow]], places: list[Place], claim: Claim) -> np.ndarray:
    """Mean over the chosen places: threat models × (controlled measure or 0, measure)."""
    values = [
        [(cell.value(claim.at_equal) if claim.at_equal else 0.0, cell.value(claim.measure)) for cell in cells[place]]
        for place in places
    ]
    return np.mean(values, axis=0)


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
