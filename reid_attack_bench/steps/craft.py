"""Step craft: adversarial images, rounded to 8 bits and within budget."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from reid_attack_bench.adversary import budget
from reid_attack_bench.adversary.access import Asker, Counted, Gallery
from reid_attack_bench.adversary.cost import Cost
from reid_attack_bench.contracts import (
    Attack,
    Batch,
    QueryAttack,
    ReferenceImages,
    State,
    Targets,
    ThreatModel,
    Victim,
    craft_threat,
    each_member,
    to_float,
)
from reid_attack_bench.data.split import Split
from reid_attack_bench.metrics.ranking import compared_rows
from reid_attack_bench.steps.artefacts import new_images, write_targets
from reid_attack_bench.steps.attack_run import AttackRun, note_lost_cameras
from reid_attack_bench.steps.data import images_attacked
from reid_attack_bench.steps.loan import on_loan
from reid_attack_bench.steps.passes import Chunked, with_smaller_batches
from reid_attack_bench.steps.step import (
    Facts,
    Progress,
    Step,
    source_keys,
    source_names,
    source_parents,
    sources_of,
    threat_of,
)
from reid_attack_bench.steps.targets import Compare, choose_targets
from reid_attack_bench.steps.workspace import Workspace

VERSION = 2


# size: the attack, what it is crafted on, and how it is computed
def craft_step(
    run: AttackRun,
    sources: Sequence[Step],
    data: Step,
    fit: Step | None,
    passes: Mapping[str, Any],
    batch_size: int,
    after: tuple[str, ...],
    draw_batch: int | None = None,
) -> Step:
    """Craft the attack of `run` on `sources`, one or several at once, for the attacked sides of `data`.

    Args:
        sources: left out where the attack does not use them, so that all sources share the result.
        fit: step that trained a learned attack.
        passes: precision and compilation of the sources, see `passes`.
        batch_size, draw_batch: as in Suite; None for one that is the other. It is in the key where it decides random
            numbers.
        after: the sources' gates; ignored for an attack without needs.
    """
    threat = craft_threat(run.threat)
    apart = draw_batch in (None, batch_size) or _draws_each_image(run.attack, threat, sources)
    drawn = {} if apart else {"draw_batch": draw_batch}
    needs = bool(run.needs)
    work = run.threat.queries or run.attack.craft_work  # a query is one forward pass
    parents = {"data": data, **(source_parents(sources) if run.uses_source else {}), **({"fit": fit} if fit else {})}
    return Step(
        "craft",
        VERSION,
        f"{run.label} on {source_names(sources)}, {data.about}" if needs else f"{run.label}, {data.about}",
        run.config(threat),
        {**run.implementation, "batch_size": batch_size, **drawn, **(passes if needs else {})},
        parents,
        after if needs else (),
        run.attack,
        work=images_attacked(data, run.threat.perturbs) * work * max(1, len(sources)),
    )


def run_craft(step: Step, workspace: Workspace, out: Path, progress: Progress) -> Facts:
    crafting = _Crafting(step, workspace)
    if crafting.targets is not None:
        write_targets(out, crafting.targets)
    stored: dict[str, np.ndarray] = {}
    with crafting.on_loan(step):
        for part, first, adversarial in _batches(step, workspace, crafting):
            total = crafting.splits[part].images.shape
            if part not in stored:
                stored[part] = new_images(out, part, total)
            stored[part][first : first + len(adversarial)] = adversarial
            progress(first + len(adversarial), total[0], "")
    note_lost_cameras(step, crafting.cost, workspace.note)
    return crafting.facts()


def first_batch(step: Step, workspace: Workspace) -> tuple[str, np.ndarray]:
    """What `run_craft` makes first: "query" or "gallery", and the first images of that part, uint8 N×H×W×3."""
    crafting = _Crafting(step, workspace)
    with crafting.on_loan(step):
        part, _, adversarial = next(_batches(step, workspace, crafting))
    return part, adversarial


def targets_of(step: Step, workspace: Workspace) -> np.ndarray | None:
    """Target identities of the queries, int64 N, of an attack that impersonates; None of one that hides."""
    return _Crafting(step, workspace).targets if threat_of(step).impersonate else None


def _batches(step: Step, workspace: Workspace, crafting: _Crafting) -> Iterator[tuple[str, int, np.ndarray]]:
    """(part, index of the first image, adversarial images uint8 N×H×W×3) of each batch, in order."""
    threat = threat_of(step)  # another object than that of the attack
    size, max_batch = crafting.batch, crafting.max_batch
    for part in threat.sides:
        images = crafting.splits[part].images
        for first in range(0, len(images), size):
            rows = slice(first, first + size)
            crafted = functools.partial(crafting.crafted, part, rows, crafting.generator.get_state())
            adversarial, max_batch = with_smaller_batches(crafted, max_batch, step.label, workspace.note)
            clean = np.asarray(images[rows])
            yield part, first, budget.enforce(adversarial, clean, threat, attack=crafting.name, first_index=first)


class _Crafting:
    """One attack with what it sees."""

    def __init__(self, step: Step, workspace: Workspace) -> None:
        self.attack: Attack = step.plugin
        self.name, self.threat = str(step.config["attack"]), threat_of(step)
        self.splits = workspace.splits(step.inputs["data"])
        self.lent = {part: self.splits[part].lent() for part in ("query", "gallery")}
        self.device = workspace.device
        self.generator = torch.Generator().manual_seed(step.seed)
        self.cost, self.images, self.queries = Cost(), 0, 0
        # images that the attack is handed at once, and images per pass of the source, whose draws are those of a batch
        self.batch = int(step.implementation.get("draw_batch", step.implementation["batch_size"]))
        fixed = any(map(_is_randomised, sources_of(step)))
        self.max_batch = self.batch if fixed else min(self.batch, int(step.implementation["batch_size"]))
        sees_lists = "gallery" in self.attack.needs and self.threat.perturbs == "query"
        embedded = functools.partial(self._embedded_gallery, step) if sees_lists else None
        self.source = workspace.source(step, self.cost, embedded) if source_keys(step) else None
        # one object for all batches, with which an attack keeps their embeddings
        self.references = {part: _references(split, self.source) for part, split in self.lent.items()}
        self.chunked: dict[int, Victim] = {}
        self.targets: np.ndarray | None = None
        if self.threat.impersonate:
            self.targets = choose_targets(
                step, self.splits["query"], self.splits["gallery"], lambda: self._clean(step, workspace)
            )
        self.learned: dict[str, State] = {}
        if "fit" in step.inputs:
            state = load_file(workspace.obtain(step.inputs["fit"]) / "state.safetensors")
            self.learned = {"state": {name: value.to(self.device) for name, value in state.items()}}
        if isinstance(self.attack, QueryAttack):
            # embedded by the system that answers, at no cost of the attack
            system, size = self._system(step, workspace)
            gallery = _references(self.splits["gallery"], self.source)
            self.gallery = Gallery(gallery, lambda images: _embed(system, images, size, self.device))

    def _embedded_gallery(self, step: Step, victim: Victim) -> torch.Tensor:
        images = self.splits["gallery"].images_for(victim)
        return _embed(victim, images, self.max_batch, self.device)

    def _system(self, step: Step, workspace: Workspace) -> tuple[Victim, int]:
        """The source as it retrieves, at no cost of the attack, and its batch size."""
        return workspace.passes(step.inputs["source"], step), self.max_batch

    def _clean(self, step: Step, workspace: Workspace) -> list[tuple[torch.Tensor, Compare]]:
        """Clean embeddings of the queries by each source, and its comparison; at no cost of the attack."""
        systems = [workspace.passes(key, step) for key in source_keys(step)]
        query = self.splits["query"]
        return [
            (_embed(each, query.images_for(each), self.max_batch, self.device), _blockwise(each)) for each in systems
        ]

    def crafted(self, part: str, rows: slice, drawn: torch.Tensor, max_batch: int) -> torch.Tensor:
        """Craft the images of `part` at `rows` with the random numbers that follow the state `drawn` of the generator.

        The batch stays whole, so the random numbers do not depend on `max_batch`, the images per pass of the source.
        """
        self.generator.set_state(drawn)
        batch, source = self._batch(part, rows), self.source
        self.images += len(batch.images)
        if source is not None and max_batch < len(batch.images):
            # below the size that was asked for, memory is short
            wrap = functools.partial(Chunked, max_batch=max_batch, recomputes=max_batch < self.max_batch)
            source = self.chunked.setdefault(max_batch, each_member(source, wrap))
        threat = replace(self.threat)
        if not isinstance(self.attack, QueryAttack):
            return self.attack.craft(source, batch, threat, self.generator, **self.learned)  # type: ignore[arg-type]
        assert source is not None
        split = self.splits[part]
        labels = (torch.from_numpy(values[rows].copy()) for values in (split.identities, split.cameras))
        asker = Asker(self.name, *labels)
        oracle = Counted(source, self.threat, asker, self.gallery, labels="labels" in self.attack.needs)
        adversarial = self.attack.search(oracle, batch, threat, self.generator)
        self.queries += int(oracle.asked.sum())
        return adversarial

    def _batch(self, part: str, rows: slice) -> Batch:
        split, other = self.lent[part], self.references["gallery" if part == "query" else "query"]
        needs, targets = self.attack.needs, None
        if self.targets is not None:
            targets = Targets(torch.from_numpy(self.targets[rows].copy()), self.references["query"])
        return Batch(
            to_float(self.splits[part].images_for(self.source)[rows], self.device),
            torch.from_numpy(split.identities[rows]) if "labels" in needs else None,
            other if "gallery" in needs else None,
            targets,
        )

    def on_loan(self, step: Step) -> AbstractContextManager[None]:
        """Context in which the attack has its source."""
        if self.source is None:
            return nullcontext()
        return on_loan(self.source, f"attack {self.name}", source_names(sources_of(step)))

    def facts(self) -> Facts:
        """Mean cost of one image: passes through the source, and queries. Empty for an attack that uses no source."""
        if self.source is None:
            return {}
        totals = {"forward_passes": self.cost.forward, "backward_passes": self.cost.backward, "queries": self.queries}
        return {name: total / self.images for name, total in totals.items()}


def _draws_each_image(attack: Attack, threat: ThreatModel, sources: Sequence[Step]) -> bool:
    """Whether the random numbers of an image depend on its batch neither in the attack nor in its sources."""
    return attack.draws_each_image(threat) and not (attack.needs and any(map(_is_randomised, sources)))


def _is_randomised(victim: Step) -> bool:
    """Whether the victim of a victim step is declared to be, by itself, its defence or the victim that is defended."""
    inner = victim.parents.get("victim")
    return bool(victim.plugin.randomised) or (inner is not None and _is_randomised(inner))


def _blockwise(system: Victim) -> Compare:
    """The comparison of `system`, one of its own in blocks."""
    if not system.own_comparison:
        return system.compare
    return lambda query, gallery: torch.cat(list(compared_rows(system.compare, query, gallery)))


def _references(split: Split, source: Victim | None) -> ReferenceImages:
    return ReferenceImages(split.images_for(source), split.identities, split.cameras)


def _embed(victim: Victim, images: np.ndarray, size: int, device: torch.device) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([victim.embed(to_float(images[i : i + size], device)) for i in range(0, len(images), size)])
