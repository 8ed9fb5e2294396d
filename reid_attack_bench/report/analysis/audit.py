"""Audit: signs of gradient masking and of weak attacks in the cells of a victim.

The criteria follow Athalye et al. (ICML 2018, arXiv 1802.00420) and Carlini et al. (arXiv 1902.06705). If a victim was
attacked adaptively, only the adaptive attacks are audited.

Differences are paired over queries, in points of mAP, with a 95 % bootstrap interval over queries; attacks with several
seeds are averaged over them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reid_attack_bench.metrics.bootstrap import interval
from reid_attack_bench.report import rows
from reid_attack_bench.report.results import CellRow, CleanRow, Results, Setting

MARGIN = 1.0
"""Smallest relevant difference, in points of mAP."""

BROKEN = 10.0
"""mAP in % below which a victim counts as broken; a stronger attack is not expected to lower it further."""

UNBOUNDED = 64
"""Epsilon (1/255) from which an attack must succeed on nearly every query."""

UNBOUNDED_RANK1 = 5.0
"""Largest Rank-1 in % accepted at epsilon >= UNBOUNDED."""

RESTARTS = 5.0
"""Largest accepted difference between the seeds of one attack, in points of mAP."""

ZERO_GRADIENTS = 0.5
"""Largest accepted share of image values with zero gradient."""


@dataclass(frozen=True)
class Flag:
    """An audit flag of a victim on a data set.

    Attributes:
        severity: "red" ranks the victim below the line of the leaderboard; "note" states a check that was not run.
        name: short description of the problem.
        evidence: the values, or what is missing.
    """

    victim: str
    dataset: str
    severity: Literal["red", "note"]
    name: str
    evidence: str


@dataclass(frozen=True)
class _Arm:
    """An attack under a threat model on a victim: its cells over seeds, and the AP per query averaged over them."""

    setting: Setting
    source: str
    family: str
    steps: int
    cells: list[CellRow]
    ap: np.ndarray

    @property
    def mean_ap(self) -> float:
        return 100.0 * float(np.nanmean(self.ap))

    @property
    def name(self) -> str:
        return f"{self.setting.variant} at ε = {self.setting.epsilon}"


def audit(results: Results) -> list[Flag]:
    """Flags of every victim on its training data set, red flags first within a victim."""
    flags = []
    cells = [cell for cell in results.cells if cell.ok]
    tested = any("gradients" in cell.needs for cell in results.cells)
    for clean in rows.training_data_rows(results):
        if not clean.ok:
            continue
        if "white-box" not in results.relations:
            why = "the suite has no white-box attacks, so the gradients were not examined"
            flags.append(Flag(clean.victim, clean.dataset, "note", "not audited", why))
            continue
        here = [c for c in cells if (c.target, c.dataset, c.perturbs) == (clean.victim, clean.dataset, "query")]
        # an attack that impersonates need not hide, so it says nothing of how well attacks that hide do
        here = [c for c in here if not c.impersonate]
        found = _flags(results, clean, here, tested)
        flags += sorted(found, key=lambda flag: flag.severity != "red")
    return flags


def unverified(flags: Iterable[Flag]) -> dict[tuple[str, str], list[str]]:
    """(victim, data set) → names of its red flags; victims without red flags are left out."""
    red: dict[tuple[str, str], list[str]] = {}
    for flag in flags:
        names = red.setdefault((flag.victim, flag.dataset), []) if flag.severity == "red" else []
        if flag.name not in names:
            names.append(flag.name)
    return red


def notes(flags: Iterable[Flag]) -> list[str]:
    """Checks that were not run and the victims concerned, one line per reason."""
    who: dict[str, list[str]] = {}
    for flag in flags:
        if flag.severity == "note":
            who.setdefault(flag.evidence, []).append(flag.victim)
    return [f"{evidence}: {', '.join(dict.fromkeys(victims))}" for evidence, victims in who.items()]


def _flags(results: Results, clean: CleanRow, cells: list[CellRow], tested: bool) -> list[Flag]:
    def flag(name: str, evidence: str, severity: Literal["red", "note"] = "red") -> Flag:
        return Flag(clean.victim, clean.dataset, severity, name, evidence)

    arms = _arms(results, cells)
    own = [arm for arm in arms if arm.source == clean.victim and _by_gradients(arm)]
    adaptive = [arm for arm in own if arm.cells[0].adaptive > 0]
    if not own:
        if not tested:
            return []
        why = "no gradient-based white-box attack succeeded; transfer attacks give an upper bound only"
        return [flag("never attacked white-box", why)]
    flags = []
    zero = clean.value("zero_gradient")
    if zero > ZERO_GRADIENTS and not adaptive:
        flags.append(flag("zero gradients", f"{100 * zero:.0f} % of the image values have zero gradient"))
    if clean.randomised and not adaptive:
        flags.append(
            flag("randomised without EOT", "two forward passes of one image differ, and no adaptive attack was run")
        )
    if clean.detector and (not adaptive or clean.detector != "suspicion"):
        why = "it rejects queries, and no adaptive attack tried to evade the detector"
        if adaptive:
            why = "it rejects queries without a suspicion score that an adaptive attack could minimise"
        flags.append(flag("detector not attacked", why))
    own = adaptive or own
    flags += [flag(*found) for found in _strength_flags(results, own)]
    flags += [flag(*found) for found in _comparison_flags(results, own, arms, clean)]
    unbounded = [arm for arm in own if arm.setting.epsilon >= UNBOUNDED and arm.steps > 1]
    left = [np.mean([cell.value("rank1") for cell in arm.cells]) for arm in unbounded]
    if not unbounded:
        what = f"no iterative white-box attack with ε of at least {UNBOUNDED} was run"
        flags.append(flag("unbounded attack not run", what, "note"))
    elif min(left) > UNBOUNDED_RANK1:
        best = unbounded[int(np.argmin(left))]
        flags.append(flag("unbounded attack fails", f"{best.name} leaves Rank-1 {min(left):.1f}"))
    return flags


def _strength_flags(results: Results, own: list[_Arm]) -> list[tuple[str, str]]:
    """Compare steps, epsilon and restarts among attacks that optimise the same objective."""
    found = []
    iterative = [arm for arm in own if arm.family]
    for weak in iterative:
        for strong in iterative:
            same_budget = (weak.setting.epsilon, weak.setting.pixels) == (strong.setting.epsilon, strong.setting.pixels)
            if weak.family == strong.family and same_budget and weak.steps < strong.steps:
                gain, low, text = _difference(results, strong, weak)
                if gain > MARGIN and low > 0:
                    one = "iterations weaker than one step" if weak.steps == 1 else "more steps do not help"
                    found.append((one, f"{strong.name} ({strong.steps} steps) is weaker than {weak.name}: {text}"))
            same = weak.setting.attack == strong.setting.attack and weak.setting.pixels == strong.setting.pixels
            if same and weak.steps > 1 and 2 * weak.setting.epsilon <= strong.setting.epsilon:
                loss, _, text = _difference(results, weak, strong)
                if weak.mean_ap > BROKEN and loss < MARGIN:
                    found.append(("larger epsilon does not hurt", f"from {weak.name} to {strong.name}: {text}"))
    for arm in iterative:
        seeds = [cell.value("mAP") for cell in arm.cells]
        if len(seeds) > 1 and max(seeds) - min(seeds) > RESTARTS:
            found.append(("restarts change the result", f"{arm.name}: mAP {min(seeds):.1f} to {max(seeds):.1f}"))
    return found


def _comparison_flags(results: Results, own: list[_Arm], arms: list[_Arm], clean: CleanRow) -> list[tuple[str, str]]:
    """Compare transfer attacks and noise with the strongest white-box attack at the same epsilon."""
    found = []
    for epsilon in sorted({arm.setting.epsilon for arm in own}):
        best = min((arm for arm in own if arm.setting.epsilon == epsilon), key=lambda arm: arm.mean_ap)
        for other in (arm for arm in arms if arm.setting.epsilon == epsilon and not arm.cells[0].own):
            gain, low, text = _difference(results, best, other)
            if _by_gradients(other) and gain > MARGIN and low > 0:
                where = f"{other.name} from {other.source} is stronger than {best.name} white-box: {text}"
                found.append(("transfer stronger than white-box", where))
        for noise in (arm for arm in arms if arm.setting.epsilon == epsilon and arm.family == "noise"):
            gain, _, text = _difference(results, noise, best)
            # the model may be robust at this epsilon; then a larger budget must break it
            yields = any(arm.setting.epsilon > epsilon and arm.mean_ap < BROKEN for arm in own)
            if noise.mean_ap > BROKEN and gain < MARGIN and not yields:
                found.append(("noise as strong as gradients", f"{noise.name} against {best.name}: {text}"))
    return found


def _by_gradients(arm: _Arm) -> bool:
    return "gradients" in arm.cells[0].needs


def _arms(results: Results, cells: list[CellRow]) -> list[_Arm]:
    groups: dict[tuple[Setting, str], list[CellRow]] = {}
    for cell in cells:
        groups.setdefault((cell.setting, cell.source), []).append(cell)
    arms = []
    for (setting, source), group in sorted(groups.items(), key=lambda item: item[0]):
        outcomes = [rows.outcome(results, cell.rank_key) for cell in group]
        ap = np.mean([np.where(each.valid, each.ap, np.nan) for each in outcomes], axis=0)
        arms.append(_Arm(setting, source, group[0].family, group[0].steps, group, ap))
    return arms


def _difference(results: Results, higher: _Arm, lower: _Arm) -> tuple[float, float, str]:
    """(mAP of `higher` minus `lower` paired over queries in points, lower end of its interval, both as text)."""
    per_query = 100.0 * (higher.ap - lower.ap)
    mean = float(np.nanmean(per_query))
    low, high = interval(per_query, seed=results.seed, exact=False)
    text = f"mAP {higher.mean_ap:.1f} against {lower.mean_ap:.1f}, difference {mean:.1f} [{low:.1f}, {high:.1f}]"
    return mean, low, text
