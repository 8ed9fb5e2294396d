"""What each kind of step does: it reads its inputs from a workspace and fills one folder."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from reid_attack_bench.steps.craft import run_craft
from reid_attack_bench.steps.data import run_data
from reid_attack_bench.steps.embed import run_clean, run_features
from reid_attack_bench.steps.fit import run_fit
from reid_attack_bench.steps.measure import run_measure
from reid_attack_bench.steps.rank import run_clean_rank, run_rank
from reid_attack_bench.steps.step import Facts, Progress, Step
from reid_attack_bench.steps.victim import run_victim
from reid_attack_bench.steps.workspace import Workspace


def run(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    """Do one step. Every global random state is seeded with the step's seed first."""
    torch.manual_seed(step.seed)
    np.random.seed(step.seed % 2**32)
    random.seed(step.seed)
    return _RUN[step.kind](step, workspace, out, progress)


_RUN: dict[str, Callable[[Step, Workspace, Path, Progress], Facts]] = {
    "data": run_data,
    "victim": run_victim,
    "clean": run_clean,
    "clean-rank": run_clean_rank,
    "fit": run_fit,
    "craft": run_craft,
    "measure": run_measure,
    "features": run_features,
    "rank": run_rank,
}
