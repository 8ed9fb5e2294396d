"""How much mAP each attack leaves on defended victims at equal passes.

All attacks on a victim have the same queries, budget and number of forward passes. torchattacks' APGD climbs the same
loss as ours: its model is the embedding distance v as a classifier of two classes with the logits (0, v), so its cross
entropy of class 0, log(1 + exp v), rises with v and has a gradient of the same signs; that is all APGD uses of a loss.

The victims are trained once and kept in runs/store.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.side_by_side import Line
from reid_attack_bench import registry
from reid_attack_bench.adversary.access import Asker, Counted, Gallery
from reid_attack_bench.adversary.adaptive import adapt
from reid_attack_bench.adversary.budget import enforce
from reid_attack_bench.attacks.apgd import APGD
from reid_attack_bench.attacks.common.objectives import NEEDS, Name, View, objective_for
from reid_attack_bench.attacks.metric import MetricPGD
from reid_attack_bench.contracts import (
    Attack,
    Batch,
    QueryAttack,
    ReferenceImages,
    ThreatModel,
    Victim,
    distances,
    to_float,
)
from reid_attack_bench.data.split import Split
from reid_attack_bench.execute.device import keep_freed_memory, use_deterministic_kernels
from reid_attack_bench.execute.events import Listener
from reid_attack_bench.execute.runner import Runner
from reid_attack_bench.metrics.ranking import rank
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.store import DEFAULT_STORE, Store
from reid_attack_bench.suites import parse

WHAT = "strength"
THREAT = ThreatModel(8)
PASSES, BATCH = 20, 32
PROTOCOL = "reid-standard-1-small"
SAMPLES = 2000  # of identities

Craft = Callable[[Victim, Batch, torch.Generator], Tensor]

_TRAINED = {
    "arch": "mobilenetv2_x1_0",
    "input_size": [128, 64],
    "epochs": 15,
    "batch_instances": 2,
    "learning_rate": 0.002,
    "triplet_from": 0.6,
    "erasing": 0.0,
}
_DEFENDED = {"defends": "mobilenetv2", "roles": ["white-box", "target"]}
SUITE = {
    "name": WHAT,
    "extends": "quick",
    "replace": ["victims", "attacks"],
    "datasets": ["plaza"],
    "victims": {
        "mobilenetv2": {"use": "torchreid", "options": _TRAINED, "train_on": ["plaza"]},
        "metric-at": {"use": "adversarial-training", **_DEFENDED, "options": {"objective": "metric", "steps": 150}},
        "jpeg": {"use": "jpeg", **_DEFENDED},
        "random-resize-pad": {"use": "random-resize-pad", **_DEFENDED},
    },
    "attacks": {"noise": {"epsilon": 8}},
}
"""Defences as in `defended`, with a shorter adversarial training, on a victim of `quick`, which is not trained again if
its weights are in the store."""


def measure() -> Iterator[Line]:
    use_deterministic_kernels()
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    yield from _left(Trial.of("metric-at", 0, device), tuple(NEEDS))
    for name, samples in (("jpeg", 1), ("random-resize-pad", 2)):
        yield from _left(Trial.of(name, samples, device), ("self", "ranking"))


@dataclass(frozen=True)
class Trial:
    """A victim as an attack sees it and as it is judged, and the images.

    Attributes:
        seen: `victim`, or its adapted form.
        how: words for `seen`.
    """

    name: str
    how: str
    victim: Victim
    seen: Victim
    query: Split
    gallery: Split
    device: torch.device

    @staticmethod
    def of(name: str, samples: int, device: torch.device, store: Path = DEFAULT_STORE) -> Trial:
        """The victim `name` of SUITE, trained if it is not in `store`.

        Args:
            samples: EOT draws of an adaptive attack; 0 for one that is not adaptive.
        """
        plan = make_plan(parse.parse(SUITE))
        opened = Store(store)
        opened.prepare()
        workspace = Runner(plan.steps, opened, device, Listener()).workspace
        key = next(k for k, step in plan.steps.items() if step.kind == "victim" and step.about == f"{name}@plaza")
        splits = workspace.splits(next(k for k, step in plan.steps.items() if step.kind == "data"))
        victim = workspace.victim(key)
        seen = adapt(victim, samples, randomised=victim.randomised) if samples else victim
        draws = f", EOT of {samples}" if samples > 1 else ""
        how = f"{name}{f' (adaptive{draws})' if samples else ''}"
        return Trial(name, how, victim, seen, splits["query"], splits["gallery"], device)

    def left(self, craft: Craft) -> np.ndarray:
        """Average precision of each query after `craft`, in %; NaN without a correct match."""
        generator = torch.Generator().manual_seed(0)
        references = ReferenceImages(self.gallery.images, self.gallery.identities, self.gallery.cameras)
        found = []
        for first in range(0, len(self.query.images), BATCH):
            rows = slice(first, first + BATCH)
            clean = np.asarray(self.query.images[rows])
            batch = Batch(to_float(clean, self.device), torch.from_numpy(self.query.identities[rows]), references)
            torch.manual_seed(first)  # draws of a randomised victim
            found.append(enforce(craft(self.seen, batch, generator), clean, THREAT, attack=WHAT))
        return self.precision(np.concatenate(found))

    def precision(self, images: np.ndarray) -> np.ndarray:
        torch.manual_seed(0)
        gallery = self.embed(self.gallery.images)
        apart = distances(self.embed(images), gallery, self.victim.distance).cpu().numpy()
        query, other = self.query, self.gallery
        ranking = rank(apart, query.identities, other.identities, query.cameras, other.cameras)
        return 100 * np.where(ranking.valid, ranking.ap, np.nan)

    def embed(self, images: np.ndarray) -> Tensor:
        with torch.inference_mode():
            parts = [images[first : first + BATCH] for first in range(0, len(images), BATCH)]
            return torch.cat([self.victim.embed(to_float(np.asarray(part), self.device)) for part in parts])


def _left(trial: Trial, names: Sequence[Name]) -> Iterator[Line]:
    of = f"{len(trial.query.images)} queries of plaza (synthetic), {trial.how}, epsilon 8, {PASSES} passes"
    torchattacks = importlib.import_module("torchattacks") if importlib.util.find_spec("torchattacks") else None
    clean = float(np.nanmean(trial.precision(np.asarray(trial.query.images))))
    published = trial.left(_ours(MetricPGD(steps=PASSES)))
    theirs = published if torchattacks is None else trial.left(_theirs(torchattacks))
    name = "torchattacks' APGD on self" if torchattacks else "metric_pgd (torchattacks is not installed)"
    target = "≤ 0 within the interval"
    note = f"clean {clean:.1f}"
    yield _difference(f"mAP left by metric_pgd, {of}", published, name, theirs, trial.query.identities, note=note)
    single = {"metric_pgd": published}
    for what, attack in contestants(names).items():
        single[what] = ours = trial.left(_ours(attack))
        asked = what in ("apgd on self", "apgd")
        against = (name, theirs) if asked else ("metric_pgd", published)
        yield _difference(f"mAP left by {what}, {of}", ours, *against, trial.query.identities, target if asked else "")
    strongest = min(single, key=lambda what: float(np.nanmean(single[what])))
    lowest = np.min([trial.left(craft) for craft in _protocol(trial)], axis=0)
    what = f"mAP left by {PROTOCOL} at epsilon 8, lowest per query, {of.rpartition(',')[0]}"
    yield _difference(
        what, lowest, f"{strongest}, the strongest above", single[strongest], trial.query.identities, target
    )


def contestants(names: Sequence[Name]) -> dict[str, Attack]:
    """Ours, each of PASSES forward passes, besides metric_pgd as published.

    Args:
        names: objectives that are climbed on their own.
    """
    momentum = MetricPGD(steps=PASSES, step_size=16.0, momentum=0.75, step_decay="linear")
    single = {f"apgd on {name}": APGD(objectives=(name,), restarts=1, steps=PASSES) for name in names}
    default = APGD()
    return {
        "metric_pgd with momentum and a falling step": momentum,
        **single,
        "apgd": APGD(steps=PASSES // default.restarts),
    }


def _ours(attack: Attack) -> Craft:
    def craft(victim: Victim, batch: Batch, generator: torch.Generator) -> Tensor:
        labels = batch.identities if "labels" in attack.needs else None
        references = batch.references if "gallery" in attack.needs else None
        return attack.craft(victim, Batch(batch.images, labels, references), THREAT, generator)

    return craft


def _protocol(trial: Trial) -> Iterator[Craft]:
    """Attacks of PROTOCOL at the epsilon of THREAT; `trial.seen` is adapted already where that helps."""
    for entry in parse.parse({**SUITE, "attacks": {}, "protocol": PROTOCOL}).attacks:
        attack = registry.find("attack", entry.use).build(entry.options)
        threat = next(each for each in entry.threats if each.epsilon == THREAT.epsilon)
        if not entry.adaptive:
            yield _asking(attack, threat, trial) if isinstance(attack, QueryAttack) else _ours(attack)


def _asking(attack: QueryAttack, threat: ThreatModel, trial: Trial) -> Craft:
    gallery = Gallery(
        ReferenceImages(trial.gallery.images, trial.gallery.identities, trial.gallery.cameras), trial.embed
    )

    def craft(victim: Victim, batch: Batch, generator: torch.Generator) -> Tensor:
        assert batch.identities is not None
        asker = Asker(WHAT, batch.identities, torch.full_like(batch.identities, -1))
        oracle = Counted(trial.victim, threat, asker, gallery, labels=False)
        return attack.search(oracle, Batch(batch.images), threat, generator)

    return craft


class _TwoClasses(nn.Module):
    """An objective as a classifier whose cross entropy of class 0 rises with it."""

    def __init__(self, objective: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.objective, self.anchor = objective, nn.Parameter(torch.zeros(()))  # whose device they read

    def forward(self, images: Tensor) -> Tensor:
        values = self.objective(images)
        return torch.stack([torch.zeros_like(values), values], dim=1)


def _theirs(torchattacks: Any) -> Craft:
    def craft(victim: Victim, batch: Batch, generator: torch.Generator) -> Tensor:
        model = _TwoClasses(objective_for("self", View(victim, batch))).to(batch.images.device).eval()
        attack = torchattacks.APGD(model, eps=THREAT.radius, steps=PASSES - 1, loss="ce")
        images: Tensor = attack.attack_single_run(batch.images, torch.zeros(len(batch.images), dtype=torch.int64))[0]
        return images.detach()

    return craft


def _difference(
    what: str, these: np.ndarray, against: str, those: np.ndarray, identities: np.ndarray, target: str = "",
    note: str = "",
) -> Line:  # fmt: skip
    """Mean difference of average precision, with its 95 % interval over resampled identities."""
    change = these - those
    middle = float(np.nanmean(change))
    people, place = np.unique(identities[~np.isnan(change)], return_inverse=True)
    totals = np.bincount(place, change[~np.isnan(change)])
    counts = np.bincount(place)
    drawn = np.random.default_rng(0).integers(0, len(people), (SAMPLES, len(people)))
    means = totals[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    shown = f"{np.nanmean(these):.1f} against {np.nanmean(those):.1f}; interval of 95 %, resampling identities"
    met = bool(low <= 0) if target else None
    return Line(WHAT, what, against, middle, float(low), float(high), "points of mAP", target, met, 1,
                f"{shown}; {note}" if note else shown)  # fmt: skip
