"""Kinds of steps. A new one is a module with its constructor and runner, and a row of `KINDS`."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from reid_attack_bench.steps import check, craft, data, embed, fit, measure, rank, reproduce, victim
from reid_attack_bench.steps.step import Facts, Progress, Step
from reid_attack_bench.steps.workspace import Workspace


@dataclass(frozen=True)
class Kind:
    """One kind of step.

    Attributes:
        version: of its code, part of the key.
        run: reads the inputs from the workspace and fills the given folder.
    """

    version: int
    run: Callable[[Step, Workspace, Path, Progress], Facts]


KINDS: dict[str, Kind] = {
    "data": Kind(data.VERSION, data.run_data),
    "victim": Kind(victim.VERSION, victim.run_victim),
    "clean": Kind(embed.CLEAN_VERSION, embed.run_clean),
    "clean-rank": Kind(rank.CLEAN_VERSION, rank.run_clean_rank),
    "reproduce": Kind(reproduce.VERSION, reproduce.run_reproduce),
    "check": Kind(check.VERSION, check.run_check),
    "fit": Kind(fit.VERSION, fit.run_fit),
    "craft": Kind(craft.VERSION, craft.run_craft),
    "measure": Kind(measure.VERSION, measure.run_measure),
    "features": Kind(embed.FEATURES_VERSION, embed.run_features),
    "rank": Kind(rank.VERSION, rank.run_rank),
}

STEP_VERSIONS = {name: kind.version for name, kind in KINDS.items()}


def run(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    """Run one step. Every global random state is seeded with the step's seed first."""
    seed(step)
    return KINDS[step.kind].run(step, workspace, out, progress)


def seed(step: Step) -> None:
    """Seed every global random state with the step's seed."""
    torch.manual_seed(step.seed)
    np.random.seed(step.seed % 2**32)
    random.seed(step.seed)
