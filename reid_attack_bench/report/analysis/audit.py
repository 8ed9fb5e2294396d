"""Is a victim as robust as its row says? Signs of masked gradients and of too weak attacks, from its own cells.

The signs are those of Athalye et al. (ICML 2018, arXiv 1802.00420) and Carlini et al. (arXiv 1902.06705). Where a
victim was attacked adaptively, the adaptive attacks speak for it and the others are no longer held against it.

Differences are of the AP of the same queries, in points of mAP, with a 95 % bootstrap interval over queries; an attack
with several seeds counts with its mean over them.
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
"""Points of mAP below which a difference is none."""

BROKEN = 10.0
"""mAP in % below which a victim counts as broken, so that a stronger attack need not do more."""

UNBOUNDED = 64
"""epsilon (1/255) from which an attack must find somebody else for nearly every query: a person is hardly left."""

UNBOUNDED_RANK1 = 5.0
"""Rank-1 in % that may be left there."""

RESTARTS = 5.0
"""Points of mAP by which the seeds of one attack may differ."""

ZERO_GRADIENTS = 0.5
"""Share of an image's values that may have no gradient at all."""


@dataclass(frozen=True)
class Flag:
    """One doubt about one victim on one data set.

    Attributes:
        severity: "red" puts the victim below the line of the leaderboard; a "note" says what was not looked at.
        name: what is wrong, in a few words.
        evidence: the figures, or what is missing.
    """

    victim: str
    dataset: str
    severity: Literal["red", "note"]
    name: str
    evidence: str


@dataclass(frozen=True)
class _Arm:
    """One attack under one threat model on one victim: its cells over seeds, and AP per query averaged over them."""

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
    """Every flag of every victim on its home data set; red ones first for each."""
    flags = []
    cells = [cell for cell in results.cells if cell.ok]
    tested = any("gradients" in cell.needs for cell in results.cells)
    for clean in rows.training_data_rows(results):
        if not clean.ok:
            continue
        if "white-box" not in results.relations:
            why = "the suite leaves white-box attacks out, so nothing is known of its gradients"
            flags.append(Flag(clean.victim, clean.dataset, "note", "not audited", why))
            continue
        here = [c for c in cells if (c.target, c.dataset, c.perturbs) == (clean.victim, clean.dataset, "query")]
        found = _flags(results, clean, here, tested)
        flags += sorted(found, key=lambda flag: flag.severity != "red")
    return flags


def unverified(flags: Iterable[Flag]) -> dict[tuple[str, str], list[str]]:
    """(victim, data set) → names of its red flags, for those that have any."""
    red: dict[tuple[str, str], list[str]] = {}
    for flag in flags:
        names = red.setdefault((flag.victim, flag.dataset), []) if flag.severity == "red" else []
        if flag.name not in names:
            names.append(flag.name)
    return red


def notes(flags: Iterable[Flag]) -> list[str]:
    """What was not looked at, and of whom: a line for each reason."""
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
        why = "no white-box attack by gradients succeeded on it; what is left are transferred attacks, an upper bound"
        return [flag("never attacked white-box", why)]
    flags = []
    zero = clean.value("zero_gradient")
    if zero > ZERO_GRADIENTS and not adaptive:
        flags.append(flag("zero gradients", f"{100 * zero:.0f} % of an image's values have no gradient"))
    if clean.randomised and not adaptive:
        flags.append(flag("randomised without EOT", "two passes of one image differ, and no adaptive attack was run"))
    if clean.detector and (not adaptive or clean.detector != "suspicion"):
        why = "it refuses queries, and no adaptive attack tried to pass it"
        if adaptive:
            why = "it refuses queries and gives no suspicion that an adaptive attack could climb down"
        flags.append(flag("detector not attacked", why))
    own = adaptive or own
    flags += [flag(*found) for found in _of_strength(results, own)]
    flags += [flag(*found) for found in _beside_others(results, own, arms, clean)]
    unbounded = [arm for arm in own if arm.setting.epsilon >= UNBOUNDED and arm.steps > 1]
    left = [np.mean([cell.value("rank1") for cell in arm.cells]) for arm in unbounded]
    if not unbounded:
        what = f"no iterative white-box attack with ε of at least {UNBOUNDED} was run"
        flags.append(flag("unbounded attack not run", what, "note"))
    elif min(left) > UNBOUNDED_RANK1:
        best = unbounded[int(np.argmin(left))]
        flags.append(flag("unbounded attack fails", f"{best.name} leaves Rank-1 {min(left):.1f}"))
    return flags


def _of_strength(results: Results, own: list[_Arm]) -> list[tuple[str, str]]:
    """Steps, epsilon and restarts, among attacks that climb the same thing."""
    found = []
    climbing = [arm for arm in own if arm.family]
    for weak in climbing:
        for strong in climbing:
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
    for arm in climbing:
        seeds = [cell.value("mAP") for cell in arm.cells]
        if len(seeds) > 1 and max(seeds) - min(seeds) > RESTARTS:
            found.append(("restarts change the result", f"{arm.name}: mAP {min(seeds):.1f} to {max(seeds):.1f}"))
    return found


def _beside_others(results: Results, own: list[_Arm], arms: list[_Arm], clean: CleanRow) -> list[tuple[str, str]]:
    """Transferred attacks and noise against the strongest white-box attack at the same epsilon."""
    found = []
    for epsilon in sorted({arm.setting.epsilon for arm in own}):
        best = min((arm for arm in own if arm.setting.epsilon == epsilon), key=lambda arm: arm.mean_ap)
        for other in (arm for arm in arms if arm.setting.epsilon == epsilon and arm.source != clean.victim):
            gain, low, text = _difference(results, best, other)
            if _by_gradients(other) and gain > MARGIN and low > 0:
                where = f"{other.name} from {other.source} is stronger than {best.name} on itself: {text}"
                found.append(("transfer stronger than white-box", where))
        for noise in (arm for arm in arms if arm.setting.epsilon == epsilon and arm.family == "noise"):
            gain, _, text = _difference(results, noise, best)
            # a model may be that steady; then a larger budget must break it
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
    """mAP of `higher` minus `lower` on the same queries, in points; the interval's lower end; both in words."""
    per_query = 100.0 * (higher.ap - lower.ap)
    mean = float(np.nanmean(per_query))
    low, high = interval(per_query, seed=results.seed)
    text = f"mAP {higher.mean_ap:.1f} against {lower.mean_ap:.1f}, difference {mean:.1f} [{low:.1f}, {high:.1f}]"
    return mean, low, text
