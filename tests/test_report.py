"""Leaderboard, matrix, pictures and report of a run with missing cells."""

from __future__ import annotations

import dataclasses
import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from reid_attack_bench.errors import BenchError
from reid_attack_bench.report import plots, sheets, tables, text, write
from reid_attack_bench.report.results import CELL_COLUMNS, CLEAN_COLUMNS, PerQuery, Results, Sheet

ATTACKS = {
    "noise": 0.02,
    "fgsm": 0.25,
    "pgd": 0.6,
    "metric_fgsm": 0.5,
    "metric_pgd": 0.75,
    "misranking": 0.9,
    "odfa": 0.8,
}
QUERIES = 60


def percent(values: np.ndarray, valid: np.ndarray) -> float:
    return 100 * float(values[valid].mean())


def make_results(
    models: tuple[str, ...] = ("osnet_x0_25", "resnet50_fc512", "mudeep", "resnet50_fc512_adversarially_trained"),
    places: tuple[str, ...] = ("campus", "plaza"),
    attacks: tuple[str, ...] = tuple(ATTACKS),
    epsilons: tuple[int, ...] = (4, 8),
    images: int = 3,
    missing: float = 0.1,
) -> Results:
    """A run of every model on every data set, each model trained on each, with some cells missing."""
    rng = np.random.default_rng(5)
    victims = [f"{model}@{place}" for model in models for place in places]
    cells, clean, per_query = [], [], {}
    ease = rng.random(QUERIES)  # what is hard for one model is hard for others

    def outcome(key: str, level: float) -> dict[str, float]:
        ap = np.clip(level + 0.4 * (ease - 0.5) + rng.normal(0, 0.05, QUERIES), 0, 1)
        hit = (0.7 * (1 - ease) + 0.3 * rng.random(QUERIES) < min(1.2 * level, 0.98)).astype(float)
        valid = np.arange(QUERIES) % 15 != 7
        per_query[key] = PerQuery(hit, ap, valid)
        rank1, mean = percent(hit, valid), percent(ap, valid)
        figures = {"rank1": rank1, "mAP": mean, "mINP": mean / 3}
        figures |= {f"rank{k}": min(100.0, rank1 + k) for k in (5, 10, 20)}
        for name, value in (("rank1", rank1), ("mAP", mean)):
            figures |= {f"{name}_low": max(0.0, value - 4), f"{name}_high": min(100.0, value + 4)}
        return figures

    for place in places:
        for v, victim in enumerate(victims):
            home = victim.endswith(place)
            key = f"clean-{place}-{victim}"
            row = dict.fromkeys(CLEAN_COLUMNS, "") | outcome(key, 0.8 - 0.02 * v if home else 0.35)
            row |= {"victim": victim, "dataset": place, "synthetic": True, "home": home, "distance": "euclidean"}
            row |= {"defence": "adversarial training" if "adv" in victim else "", "queries": QUERIES, "status": "ok"}
            clean.append(row | {"rank_key": key})
    for attack in attacks:
        for epsilon in epsilons:
            for place in places:
                for source in victims:
                    for target in victims:
                        base = next(r for r in clean if r["victim"] == target and r["dataset"] == place)
                        own = source == target
                        cell = dict.fromkeys(CELL_COLUMNS, math.nan)
                        cell |= {"attack": attack, "epsilon": epsilon, "pixels": None, "perturbs": "query"}
                        cell |= {"access": "white-box" if own else "transfer", "needs": "gradients", "source": source}
                        cell |= {"target": target, "dataset": place, "synthetic": True, "queries": QUERIES, "seed": 7}
                        if rng.random() < missing:
                            cells.append(cell | {"status": "failed: NaN in the embeddings"})
                            continue
                        key = f"{attack}-{epsilon}-{place}-{source}-{target}"
                        force = ATTACKS[attack] * min(epsilon / 8, 1.1) * (1.05 if own else 0.5)
                        force *= 0.6 if "adv" in target else 1.0
                        after = outcome(key, base["mAP"] / 100 * max(1 - force, 0.02))
                        cell |= after | {"status": "ok", "rank_key": key}
                        for name in ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP"):
                            cell |= {f"clean_{name}": base[name], f"drop_{name}": base[name] - after[name]}
                        cell |= {"linf": epsilon, "l2": epsilon * (1 + ATTACKS[attack]), "pixels_changed": 8000.0}
                        cell |= {"ssim": 1 - epsilon * 0.01 * (1 + ATTACKS[attack]), "ms_ssim": 0.98}
                        cells.append(cell)
    return Results(
        suite="demo", seed=7, headline_epsilon=8,
        cells=pd.DataFrame(cells, columns=list(CELL_COLUMNS)), clean=pd.DataFrame(clean, columns=list(CLEAN_COLUMNS)),
        per_query=per_query, sheets=make_sheets(victims[:2], places[:1], attacks, epsilons[-1:], images, rng),
        manifest={"command": "reid-attack-bench run demo"}, notes=["All data are synthetic."],
    )  # fmt: skip


def make_sheets(
    sources: list[str],
    places: tuple[str, ...],
    attacks: tuple[str, ...],
    epsilons: tuple[int, ...],
    images: int,
    rng: np.random.Generator,
) -> list[Sheet]:
    found = []
    ramp = np.linspace(60, 200, 128)[:, None, None] + np.linspace(-40, 40, 64)[None, :, None] * np.array([1, 0, -1])
    clean = np.stack([np.roll(ramp, 20 * i, axis=0) for i in range(images)]).clip(0, 255).astype(np.uint8)
    for source in sources:
        for place in places:
            for attack in attacks:
                for epsilon in epsilons:
                    change = rng.integers(-epsilon, epsilon + 1, clean.shape)
                    adversarial = (clean.astype(int) + change).clip(0, 255).astype(np.uint8)
                    found.append(Sheet(attack, epsilon, source, place, clean, adversarial))
    return found
