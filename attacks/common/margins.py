"""Margins that query attacks minimise: functions of answers, one value per image, with what each of them costs.

Each margin reads one form of answer, so it decides what an attack needs (`needs_of`). To hide:

- "embedding": minus the distance to the embedding of the own clean image, in the distance of the source: squared
  Euclidean, 1 − cosine, or a comparison of its own. It takes no labels and no gallery; its reference costs each image
  one query.
- "distances": distance to the nearest wrong gallery image minus distance to the nearest correct one. Below zero the
  query's first match is wrong. It takes labels, which say what in the gallery is correct: an oracle, and no attacker
  without them can compute it. No reference. For an image without correct gallery images it is the distance to the
  nearest wrong one with its sign changed: away from everything.
- "ranking": overlap of the list of identities with that of the clean image. An identity weighs the sum of 1/log2(1 + r)
  over its ranks r in the clean list; the overlap is the sum of the weights of the listed identities, each times
  1/log2(1 + its rank), divided by that of the clean list with itself. It is 1 for the clean list and 0 if no identity
  of it is listed, which nothing improves. No labels; its reference costs one query. It is flat almost everywhere.

To impersonate (`Batch.targets`) the same words stand for:

- "embedding": mean distance to the embeddings of guide images of the target; each guide used costs the image a query.
- "distances": distance to the nearest gallery image of the target minus that to the nearest of all others. Labels as
  above, no reference.
- "ranking": minus the overlap with the lists of guide images, in whose weights the target itself counts as a list of
  its own; −1 if the target alone is listed. Each guide used costs the image a query.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import Batch, Need, Oracle, Targets, to_float
from reid_attack_bench.errors import BenchError

MarginName = Literal["embedding", "distances", "ranking"]


def needs_of(name: MarginName) -> frozenset[Need]:
    """What an attack on this margin declares."""
    return frozenset({"distances", "labels"} if name == "distances" else {name})


@dataclass(frozen=True)
class Margin:
    """A margin of the images of one batch.

    Attributes:
        of: images M×3×H×W and rows, int64 M on the CPU, the images of the batch they are versions of → M values. Each
            costs the image of its row one query.
        least: a value that no image can fall below, at which nothing is left to do.
    """

    of: Callable[[Tensor, Tensor], Tensor]
    least: float


def margin_of(name: MarginName, oracle: Oracle, batch: Batch, guides: int) -> Margin:
    """Prepare a margin; asks for its references.

    Args:
        guides: largest number of guide images per target. At most half of the queries are spent on them, but at least
            one.

    Raises:
        BenchError: a target without guide images.
    """
    if name == "distances":
        return _of_distances(oracle, batch.targets)
    references = _own(batch.images) if batch.targets is None else _guides(batch, min(guides, oracle.budget // 2))
    if name == "embedding":
        return _of_embeddings(oracle, references, hide=batch.targets is None)
    return _of_lists(oracle, references, batch.targets)


@dataclass(frozen=True)
class _References:
    """Images whose answers a margin compares with: M×3×H×W, `rows` of the batch they are for, and `slots` N×K.

    `slots` has the places of the references of each image, −1 where it has fewer than K.
    """

    images: Tensor
    rows: Tensor
    slots: Tensor


def _own(images: Tensor) -> _References:
    rows = torch.arange(len(images))
    return _References(images, rows, rows[:, None])


def _guides(batch: Batch, limit: int) -> _References:
    assert batch.targets is not None
    people, found = torch.from_numpy(batch.targets.guides.identities), []
    for target in batch.targets.identities.tolist():
        found.append((people == target).nonzero().flatten()[: max(1, limit)])
        if not len(found[-1]):
            raise BenchError(f"no guide image of identity {target}: without one no query can be made to retrieve it")
    counts = torch.tensor([len(own) for own in found])
    slots = torch.full((len(found), int(counts.max())), -1)
    slots[torch.arange(slots.shape[1]) < counts[:, None]] = torch.arange(int(counts.sum()))
    images = to_float(batch.targets.guides.images[torch.cat(found).numpy()], batch.images.device)
    return _References(images, torch.arange(len(found)).repeat_interleave(counts), slots)


def _of_embeddings(oracle: Oracle, references: _References, *, hide: bool) -> Margin:
    answers = oracle.embed(references.images, references.rows)
    slots = references.slots.to(answers.device)
    there = (slots >= 0).to(answers)
    targets, shares = answers[slots.clamp(min=0)], there / there.sum(dim=1, keepdim=True)

    def of(images: Tensor, rows: Tensor) -> Tensor:
        embeddings = oracle.embed(images, rows)[:, None]
        at = rows.to(embeddings.device)
        if oracle.own_comparison:
            asked, wanted = embeddings.expand(-1, targets.shape[1], -1), targets[at]
            apart = oracle.paired(asked.flatten(0, 1), wanted.flatten(0, 1)).unflatten(0, wanted.shape[:2])
        elif oracle.distance == "cosine":
            apart = 1.0 - functional.cosine_similarity(embeddings, targets[at], dim=2)
        else:
            apart = (embeddings - targets[at]).square().sum(dim=2)
        mean = (apart * shares[at]).sum(dim=1)
        return -mean if hide else mean

    return Margin(of, -float("inf") if hide else 0.0)


def _of_distances(oracle: Oracle, targets: Targets | None) -> Margin:
    wanted = oracle.correct(None if targets is None else targets.identities)

    def of(images: Tensor, rows: Tensor) -> Tensor:
        apart = oracle.distances(images, rows)
        inside = wanted[rows].to(apart.device)
        nearest_in = apart.masked_fill(~inside, float("inf")).amin(dim=1)
        nearest_out = apart.masked_fill(inside, float("inf")).amin(dim=1)
        nearest_in, nearest_out = (torch.where(near.isinf(), 0.0, near) for near in (nearest_in, nearest_out))
        return nearest_out - nearest_in if targets is None else nearest_in - nearest_out

    return Margin(of, -float("inf"))


def _of_lists(oracle: Oracle, references: _References, targets: Targets | None) -> Margin:
    lists = oracle.ranking(references.images, references.rows)
    gains = 1.0 / torch.arange(2.0, 2.0 + lists.shape[1], device=lists.device).log2()
    slots = references.slots.to(lists.device)
    there = (slots >= 0).to(gains)
    named = lists[slots.clamp(min=0)]  # N×K×top
    weights = there[:, :, None] * gains / there.sum(dim=1)[:, None, None]
    named, weights = named.flatten(1), weights.flatten(1)
    if targets is not None:
        named = torch.cat([named, targets.identities.to(named)[:, None]], dim=1)
        weights = torch.cat([weights, gains.sum().expand(len(weights), 1)], dim=1)
    named = named.masked_fill(named < 0, -2)  # the ends of short lists agree with nothing

    def overlap(listed: Tensor, rows: Tensor) -> Tensor:
        at = rows.to(listed.device)
        return ((listed[:, :, None] == named[at][:, None]) * weights[at][:, None]).sum(dim=2) @ gains

    everyone = torch.arange(len(slots))
    if targets is None:
        most, sign = overlap(lists[slots[:, 0]], everyone).clamp(min=1e-12), 1.0
    else:
        most, sign = overlap(named[:, -1:].expand(-1, len(gains)), everyone), -1.0

    def of(images: Tensor, rows: Tensor) -> Tensor:
        return sign * overlap(oracle.ranking(images, rows), rows) / most[rows.to(most.device)]

    return Margin(of, 0.0 if targets is None else -1.0)
