"""Conclusions of a run, computed once and shared by all reports."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from reid_attack_bench.report.analysis import audit, defences, findings
from reid_attack_bench.report.analysis import leaderboard as tables
from reid_attack_bench.report.results import Results


@dataclass(frozen=True)
class Conclusions:
    """Leaderboard, results of the claims, audit flags, and gains of defences over their undefended baselines."""

    board: pd.DataFrame
    claims: list[findings.ClaimResult]
    flags: list[audit.Flag]
    gains: pd.DataFrame


def conclude(results: Results) -> Conclusions:
    """Leaderboard, claims, audit and defence gains of `results`."""
    flags = audit.audit(results)
    board = tables.leaderboard(results, audit.unverified(flags), audit.doubtful(flags))
    return Conclusions(board, findings.evaluate_claims(results), flags, defences.robustness_gains(results))
