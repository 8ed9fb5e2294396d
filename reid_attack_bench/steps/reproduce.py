"""Step reproduce: values of a victim without attack against those that were published for it."""

from __future__ import annotations

from pathlib import Path

from reid_attack_bench.contracts import PublishedValues
from reid_attack_bench.errors import VictimError
from reid_attack_bench.metrics.ranking import summary
from reid_attack_bench.steps.artefacts import read_ranking
from reid_attack_bench.steps.step import Facts, Progress, Step
from reid_attack_bench.steps.workspace import Workspace

VERSION = 1

TOLERANCE = 0.5
"""Largest difference from a published Rank-1 or mAP, in points and in both directions.

Image decoders and resizing differ between libraries by a few tenths. A value that is much better is as wrong: of other
weights, of a part of the gallery, or of cameras that were not told apart.
"""

NOT_REPRODUCED = "clean figure not reproduced"
"""Start of the reason for which such a victim is not attacked, and the name of its flag in the audit."""


def reproduce_step(rank: Step, published: PublishedValues) -> Step:
    """Compare a clean ranking with published values; it fails where Rank-1 or mAP differs by more than TOLERANCE."""
    return Step(
        "reproduce",
        VERSION,
        rank.about,
        {"published": {"rank1": published.rank1, "mAP": published.mAP}},
        parents={"rank": rank},
        action="reproduce clean figure of",
        work=1,
    )


def run_reproduce(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    values = summary(read_ranking(workspace.obtain(step.inputs["rank"])))
    found = {name: round(values[name], 1) for name in ("rank1", "mAP")}  # as precise as what is published
    published = step.config["published"]
    if not all(abs(value - published[name]) < TOLERANCE + 0.01 for name, value in found.items()):
        raise VictimError(
            f"{NOT_REPRODUCED}: published Rank-1 {published['rank1']:.1f}, mAP {published['mAP']:.1f}; "
            f"here {found['rank1']:.1f}, {found['mAP']:.1f}. {step.about}: check weights, data, preprocessing (input "
            "size, channel order, normalisation) and cameras"
        )
    return found
