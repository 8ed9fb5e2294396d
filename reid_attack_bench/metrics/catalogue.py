"""Every measure of the tables."""

from __future__ import annotations

MEASURES = (
    "rank1", "rank5", "rank10", "rank20", "mAP", "mINP",
    "drop_rank1", "drop_rank5", "drop_rank10", "drop_rank20", "drop_mAP", "drop_mINP",
    "l2", "pixels_changed", "ssim", "ms_ssim", "lpips", "grid",
)  # fmt: skip
"""Columns of matrix.csv that a finding may compare."""
