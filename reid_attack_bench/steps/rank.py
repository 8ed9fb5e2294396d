"""Steps clean-rank and rank: ranking with and without an attack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from reid_attack_bench.errors import VictimError
from reid_attack_bench.metrics.bootstrap import intervals
from reid_attack_bench.metrics.ranking import Ranking, distance_rows, rank, summary, with_misses
from reid_attack_bench.metrics.targeted import rank_targets, targeted_summary
from reid_attack_bench.steps.artefacts import REFUSED, read_targets
from reid_attack_bench.steps.data import source_of
from reid_attack_bench.steps.step import Facts, Progress, Step
from reid_attack_bench.steps.workspace import Workspace

CLEAN_VERSION = 2
VERSION = 2


def clean_rank_step(clean: Step, victim: Step, data: Step, expected_rank1: float) -> Step:
    """Rank without an attack; it fails where Rank-1 in % is below `expected_rank1`."""
    return Step(
        "clean-rank",
        CLEAN_VERSION,
        clean.about,
        {"protocol": source_of(data).protocol, "expected_rank1": expected_rank1},
        parents={"features": clean, "data": data, "victim": victim},
        action="clean rank",
        work=1,
    )


def rank_step(features: Step, clean: Step, victim: Step, data: Step) -> Step:
    """Rank under attack: `features` of the attacked side, `clean` features of the other.

    Where the attack impersonates, its targets are ranked too; else the step is what it was before there were targets.
    """
    craft = features.parents["craft"]
    targets = {"craft": craft} if craft.config["threat"].get("impersonate") else {}
    return Step(
        "rank",
        VERSION,
        features.about,
        {"protocol": source_of(data).protocol},
        parents={"features": features, "clean": clean, "data": data, "victim": victim, **targets},
        work=1,
    )


def run_clean_rank(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    features = load_file(workspace.obtain(step.inputs["features"]) / "features.safetensors")
    facts = _rank_features(step, workspace, out, features["query"], features["gallery"], features.get(REFUSED))
    expected = float(step.config["expected_rank1"])
    if facts["rank1"] < expected:
        name = step.parents["victim"].about
        raise VictimError(
            f"victim {name}: clean Rank-1 is {facts['rank1']:.1f} %, below the expected {expected:.1f} %: "
            "train longer, or change the seed or expected_rank1 in the suite"
        )
    return facts


def _rank_features(
    step: Step,
    workspace: Workspace,
    out: Path,
    query: torch.Tensor,
    gallery: torch.Tensor,
    missed: torch.Tensor | None,
) -> Facts:
    """Rank and store; `missed`, bool N, marks refused queries, which count as misses."""
    splits = workspace.splits(step.inputs["data"])
    distance = workspace.victim(step.inputs["victim"]).distance
    ranking = rank(
        distance_rows(query.to(workspace.device), gallery.to(workspace.device), distance),
        splits["query"].identities,
        splits["gallery"].identities,
        splits["query"].cameras,
        splits["gallery"].cameras,
        protocol=step.config["protocol"],
        rng=np.random.RandomState(0),
    )
    if missed is not None:
        ranking = with_misses(ranking, missed.numpy(), len(gallery))
    arrays = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in vars(ranking).items()}
    save_file(arrays, out / "ranking.safetensors")
    columns = np.stack([ranking.hits[:, 0], ranking.ap], axis=1)[ranking.valid]
    bounds: dict[str, float] = {}
    for name, (low, high) in zip(("rank1", "mAP"), intervals(columns, seed=0), strict=True):
        bounds |= {f"{name}_low": 100.0 * low, f"{name}_high": 100.0 * high}
    return {**summary(ranking), **bounds, "queries": int(ranking.valid.sum())}


def run_rank(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    clean = load_file(workspace.obtain(step.inputs["clean"]) / "features.safetensors")
    attacked = load_file(workspace.obtain(step.inputs["features"]) / "features.safetensors")
    both = {**clean, **attacked}
    refused = attacked.get(REFUSED)
    query, missed = both["query"], clean.get(REFUSED)
    if refused is not None:  # a refused adversarial query counts as its clean version
        query, missed = torch.where(refused[:, None], clean["query"], query), refused & clean[REFUSED]
    facts = _rank_features(step, workspace, out, query, both["gallery"], missed)
    if refused is not None:
        facts["rejected"] = 100.0 * float(refused.float().mean())
    if "craft" in step.inputs:
        before = _rank_targets(step, workspace, clean["query"], clean["gallery"], clean.get(REFUSED))
        after = _rank_targets(step, workspace, query, clean["gallery"], missed)
        facts |= targeted_summary(before, after)
        parts = {"first": after.first, "ap": after.ap, "clean_first": before.first, "clean_ap": before.ap}
        save_file({name: torch.from_numpy(value) for name, value in parts.items()}, out / "targeted.safetensors")
    return facts


def _rank_targets(
    step: Step, workspace: Workspace, query: torch.Tensor, gallery: torch.Tensor, missed: torch.Tensor | None
) -> Ranking:
    splits = workspace.splits(step.inputs["data"])
    distance = workspace.victim(step.inputs["victim"]).distance
    ranking = rank_targets(
        distance_rows(query.to(workspace.device), gallery.to(workspace.device), distance),
        read_targets(workspace.obtain(step.inputs["craft"])),
        splits["query"].identities,
        splits["gallery"].identities,
        splits["query"].cameras,
        splits["gallery"].cameras,
    )
    return ranking if missed is None else with_misses(ranking, missed.numpy(), len(gallery))
