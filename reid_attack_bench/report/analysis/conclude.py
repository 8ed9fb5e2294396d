"""Conclusions of a run, computed once and shared by all reports."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from reid_attack_bench.report.analysis import audit, controls, defences, findings, mean_drop, rank_order, same_images
from reid_attack_bench.report.analysis import leaderboard as tables
from reid_attack_bench.report.analysis.controls import Controls
from reid_attack_bench.report.results import Results


@dataclass(frozen=True)
class Conclusions:
    """Conclusions of a run.

    Attributes:
        board: the leaderboard.
        claims: results of the suite's claims.
        flags: flags of the audit.
        gains: of defences over their undefended baselines.
        same_images: of defences and their baselines on the same images.
        controls: transferred attacks compared with controls.
        orders: of attacks on one data set compared with those on another.
        mean_drops: mean drop rates of attacks over their targets.
    """

    board: pd.DataFrame
    claims: list[findings.ClaimResult]
    flags: list[audit.Flag]
    gains: pd.DataFrame
    same_images: pd.DataFrame
    controls: Controls
    orders: pd.DataFrame
    mean_drops: pd.DataFrame


def conclude(results: Results) -> Conclusions:
    """Everything that reports conclude from `results`."""
    flags = audit.audit(results)
    board = tables.leaderboard(results, audit.unverified(flags), audit.doubtful(flags))
    gains = defences.robustness_gains(results)
    claims, orders = findings.evaluate_claims(results), rank_order.rank_orders(results)
    pairs, drops = same_images.same_images(results), mean_drop.table(results)
    return Conclusions(board, claims, flags, gains, pairs, controls.find(results), orders, drops)
