"""Victims of a plan, and the relation between a source and a target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reid_attack_bench.steps.step import Step


@dataclass(frozen=True)
class PlannedVictim:
    """A victim in the plan: one model, with what planning must know of it."""

    label: str
    model: str
    home: str
    step: Step
    roles: tuple[str, ...]
    differentiable: bool
    purifies: bool = False
    classifies: bool = True


def is_source(victim: PlannedVictim) -> bool:
    return "source" in victim.roles or "white-box" in victim.roles


def relation_of(source: PlannedVictim, target: PlannedVictim, dataset: str, known: Iterable[str]) -> str:
    """One of suite.RELATIONS, or empty where `target` has its home in another of the `known` data sets.

    A victim that does not say what it was trained on is at home everywhere.
    """
    if target.home in known and target.home != dataset:
        return ""
    if source.label == target.label:
        return "white-box"
    if source.model == target.model:
        return "cross-dataset"
    return "cross-both" if source.home and target.home and source.home != target.home else "cross-model"
