"""Steps clean-rank and rank: ranking with and without an attack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from reid_attack_bench.adversary.result_list import list_suspicion
from reid_attack_bench.contracts import State
from reid_attack_bench.errors import VictimError
from reid_attack_bench.metrics.pairs import Clothes, SameIdentity
from reid_attack_bench.metrics.ranking import (
    NearestImages,
    Ranking,
    bounds,
    compared_rows,
    distance_rows,
    mean_of,
    rank,
    summary,
    with_misses,
)
from reid_attack_bench.metrics.targeted import rank_targets, targeted_summary
from reid_attack_bench.metrics.verification import PairDistances, true_positive_rates
from reid_attack_bench.steps.artefacts import (
    NEAREST,
    REFUSED,
    read_draws,
    read_targets,
    write_nearest,
    write_ranking,
)
from reid_attack_bench.steps.data import source_of
from reid_attack_bench.steps.step import Facts, Progress, Step
from reid_attack_bench.steps.workspace import Workspace

CLEAN_VERSION = 4
VERSION = 4

_BLOCK = 256  # queries whose result lists are judged at once


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
    draws = [_judged(step, workspace, draw) for draw in _read_draws(step, workspace, "features")]
    ranked = [_ranked(step, workspace, draw, thresholds=True) for draw in draws]
    ranking = mean_of([_missed(each.ranking, draw) for each, draw in zip(ranked, draws, strict=True)])
    pairs = {name: np.stack([getattr(each, name) for each in ranked]) for name in ("genuine", "thresholds")}
    _store_nearest(out, ranked)
    facts = _store(step, workspace, out, ranking, pairs) | true_positive_rates(**pairs)
    expected = float(step.config["expected_rank1"])
    if facts["rank1"] < expected:
        name = step.parents["victim"].about
        raise VictimError(
            f"victim {name}: clean Rank-1 is {facts['rank1']:.1f} %, below the expected {expected:.1f} %: "
            "train longer, or change the seed or expected_rank1 in the suite"
        )
    return facts


def run_rank(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    """A refused adversarial query is a miss; with a detector, it is also ranked as its clean version."""
    clean, attacked = (_read_draws(step, workspace, name) for name in ("clean", "features"))
    # adversarial embeddings in place of clean ones, and of refused queries the clean ones
    both = [_judged(step, workspace, {**old, **new}) for old, new in zip(clean, attacked, strict=True)]
    clean = [_judged(step, workspace, draw) for draw in clean]
    both = [_as_clean(after, before) for before, after in zip(clean, both, strict=True)]
    detects = REFUSED in attacked[0] or workspace.victim(step.inputs["victim"]).list_length > 0
    ranked = [_ranked(step, workspace, draw) for draw in both]
    _store_nearest(out, ranked)
    rankings, pairs = [each.ranking for each in ranked], {"genuine": np.stack([each.genuine for each in ranked])}
    leading = mean_of([_missed(each, draw) for each, draw in zip(rankings, both, strict=True)])
    if not detects:
        facts = _store(step, workspace, out, leading, pairs)
    else:
        twice = [{**draw, REFUSED: draw[REFUSED] & old[REFUSED]} for draw, old in zip(both, clean, strict=True)]
        as_clean = mean_of([_missed(each, draw) for each, draw in zip(rankings, twice, strict=True)])
        facts = _store(step, workspace, out, leading, pairs, as_clean)
        facts |= {f"{name}_as_clean": value for name, value in summary(as_clean).items() if name in ("rank1", "mAP")}
        facts["rejected"] = 100.0 * float(torch.stack([draw[REFUSED] for draw in both]).float().mean())
    if "craft" in step.inputs:
        before, after = (_ranked_targets(step, workspace, draws) for draws in (clean, both))
        facts |= targeted_summary(before, after, workspace.splits(step.inputs["data"])["query"].identities)
        parts = {"first": after.first, "ap": after.ap, "clean_first": before.first, "clean_ap": before.ap}
        save_file({name: torch.from_numpy(value) for name, value in parts.items()}, out / "targeted.safetensors")
    return facts


def _read_draws(step: Step, workspace: Workspace, role: str) -> list[State]:
    """Embeddings of a parent of `step`, one state per draw of the victim.

    Raises:
        VictimError: one draw of a victim that was found to be randomised, stored before there were more.
    """
    draws = read_draws(workspace.obtain(step.inputs[role]))
    if len(draws) == 1 and workspace.randomised(step.inputs["victim"]):
        raise VictimError(
            f"victim {step.parents['victim'].about} is randomised, but its stored embeddings are a single draw of an "
            "earlier version: declare randomised = True, and they are made again"
        )
    return draws


def _judged(step: Step, workspace: Workspace, draw: State) -> State:
    """`draw` with the queries that the victim refuses for their result list among the refused."""
    victim = workspace.victim(step.inputs["victim"])
    if not victim.list_length:
        return draw
    gallery = draw["gallery"].to(workspace.device)
    with torch.no_grad():
        scores = [list_suspicion(victim, part.to(workspace.device), gallery) for part in draw["query"].split(_BLOCK)]
    refused = (torch.cat(scores) > 0).cpu()
    return {**draw, REFUSED: refused | draw[REFUSED] if REFUSED in draw else refused}


def _as_clean(draw: State, clean: State) -> State:
    """`draw` with the clean embeddings in place of those of refused queries; both are of N queries."""
    if REFUSED not in draw:
        return draw
    return {**draw, "query": torch.where(draw[REFUSED][:, None], clean["query"], draw["query"])}


def _missed(ranking: Ranking, draw: State) -> Ranking:
    """`ranking` with the refused queries of `draw` as misses."""
    return with_misses(ranking, draw[REFUSED].numpy(), len(draw["gallery"])) if REFUSED in draw else ranking


@dataclass(frozen=True)
class _Ranked:
    """One draw: its ranking, distances of genuine pairs (infinite for refused queries), and thresholds if wanted.

    nearest: see `artefacts.write_nearest`; None where the stored embeddings say it.
    """

    ranking: Ranking
    genuine: np.ndarray
    thresholds: np.ndarray | None
    nearest: np.ndarray | None


def _ranked(step: Step, workspace: Workspace, draw: State, *, thresholds: bool = False) -> _Ranked:
    labels, clothes = _labels(step, workspace), _clothes(step, workspace)
    same = SameIdentity.of(*labels, **clothes)
    pairs = PairDistances(same, impostors=thresholds)
    watched, nearest = pairs.watch(_distances(step, workspace, draw)), None
    if _ranks_its_own_way(step, workspace):
        nearest = NearestImages(same, NEAREST)
        watched = nearest.watch(watched)
    ranking = rank(watched, *labels, protocol=step.config["protocol"], rng=np.random.RandomState(0), **clothes)
    genuine = pairs.genuine(draw[REFUSED].numpy() if REFUSED in draw else None)
    found = None if nearest is None else nearest.found
    return _Ranked(ranking, genuine, pairs.thresholds() if thresholds else None, found)


def _ranked_targets(step: Step, workspace: Workspace, draws: list[State]) -> Ranking:
    """Ranking of the targets of an attack that impersonates; a refused query is a miss."""
    targets = read_targets(workspace.obtain(step.inputs["craft"]))
    labels, clothes = _labels(step, workspace), _clothes(step, workspace)
    rankings = [rank_targets(_distances(step, workspace, draw), targets, *labels, **clothes) for draw in draws]
    return mean_of([_missed(each, draw) for each, draw in zip(rankings, draws, strict=True)])


def _distances(step: Step, workspace: Workspace, draw: State) -> Iterator[torch.Tensor]:
    query, gallery = (draw[part].to(workspace.device) for part in ("query", "gallery"))
    victim = workspace.victim(step.inputs["victim"])
    if victim.reranks:
        reranked = victim.rerank(query, gallery)
        if reranked is None:
            raise VictimError(f"victim {step.parents['victim'].about}: rerank returned None: declare reranks = False")
        return iter([reranked] if isinstance(reranked, torch.Tensor) else reranked)
    if victim.own_comparison:
        return compared_rows(victim.compare, query, gallery)
    return distance_rows(query, gallery, victim.distance)


def _ranks_its_own_way(step: Step, workspace: Workspace) -> bool:
    victim = workspace.victim(step.inputs["victim"])
    return victim.reranks or victim.own_comparison


def _labels(step: Step, workspace: Workspace) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    splits = workspace.splits(step.inputs["data"])
    query, gallery = splits["query"], splits["gallery"]
    return query.identities, gallery.identities, query.cameras, gallery.cameras


def _clothes(step: Step, workspace: Workspace) -> Clothes:
    """Labels of clothes, where the protocol of the step asks for them."""
    if step.config["protocol"] != "clothes":
        return {}
    splits = workspace.splits(step.inputs["data"])
    return {"query_clothes": splits["query"].clothes, "gallery_clothes": splits["gallery"].clothes}


def _store_nearest(out: Path, ranked: list[_Ranked]) -> None:
    """Store the nearest images of the first draw, for the pictures of the report, where they are known."""
    if ranked[0].nearest is not None:
        write_nearest(out, ranked[0].nearest)


def _store(
    step: Step,
    workspace: Workspace,
    out: Path,
    ranking: Ranking,
    pairs: dict[str, np.ndarray],
    as_clean: Ranking | None = None,
) -> Facts:
    """Write the rankings; returns the measures of the first, with intervals that resample identities."""
    identities = np.asarray(workspace.splits(step.inputs["data"])["query"].identities, np.int64)
    write_ranking(out, ranking, identities, as_clean, pairs)
    return {**summary(ranking), **bounds(ranking, identities), "queries": int(ranking.valid.sum())}
