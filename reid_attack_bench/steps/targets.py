"""Targets of attacks that impersonate: for each query the identity that it is to retrieve instead of its own.

A target T of a query is another identity with at least one query image, the attacker's guides, and at least one gallery
image that is not junk for the query, by the camera rule of its own identity: one that another camera took.

Random targets follow from the data set and the seed of the attack alone, so every attack, source and budget of a suite
has the same ones. The hardest target is the nearest by the clean embeddings of the source: smallest mean distance
between the query and the guides. With several sources it is the mean over them, each relative to the mean over people.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from reid_attack_bench.data.split import Split
from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import digest_of
from reid_attack_bench.steps.step import Step

Compare = Callable[[Tensor, Tensor], Tensor]
"""Distances Q×G of Q×D and G×D, see Victim.compare."""

_ROWS = 512  # queries compared with all others at a time


def choose_targets(
    craft: Step, query: Split, gallery: Split, embedded: Callable[[], list[tuple[Tensor, Compare]]]
) -> np.ndarray:
    """Target identities, int64 N, of the queries of a craft step whose threat model is to impersonate.

    Args:
        embedded: clean embeddings N×D of the queries by each source, and its comparison; called for "hardest" only.

    Raises:
        BenchError: a query has no possible target.
    """
    people, possible = possible_targets(query, gallery)
    if not possible.any(axis=1).all():
        row = int(np.flatnonzero(~possible.any(axis=1))[0])
        raise BenchError(
            f"{craft.parents['data'].about}: query {row} has nobody to impersonate: that takes another identity with a "
            "query image and a gallery image of another camera"
        )
    if craft.config["threat"]["impersonate"] == "hardest":
        return people[_nearest(people, possible, query, embedded())]
    seed = digest_of(["targets", craft.parents["data"].meaning, craft.config["seed"]])
    rng = np.random.default_rng(int(seed[:15], 16))
    drawn = rng.integers(0, possible.sum(axis=1))
    return people[[np.flatnonzero(row)[nth] for row, nth in zip(possible, drawn, strict=True)]]


def possible_targets(query: Split, gallery: Split) -> tuple[np.ndarray, np.ndarray]:
    """Identities with query images, int64 P, and bool N×P: which of them are possible targets of each query."""
    people = np.unique(query.identities)
    cameras = np.unique(np.concatenate([query.cameras, gallery.cameras]))
    seen = np.zeros((len(people), len(cameras)), bool)  # gallery images of a person by a camera
    known = np.isin(gallery.identities, people)
    person = np.searchsorted(people, gallery.identities[known])
    seen[person, np.searchsorted(cameras, gallery.cameras[known])] = True
    by_own_camera = seen[:, np.searchsorted(cameras, query.cameras)].T
    by_others = seen.sum(axis=1)[None] - by_own_camera > 0
    return people, by_others & (query.identities[:, None] != people)


def _nearest(
    people: np.ndarray, possible: np.ndarray, query: Split, embedded: list[tuple[Tensor, Compare]]
) -> np.ndarray:
    """Index of the nearest possible target of each query: smallest mean distance to its query images."""
    belongs = torch.from_numpy(query.identities[:, None] == people).to(embedded[0][0].device, torch.float32)
    mean = belongs / belongs.sum(dim=0)
    found = []
    for first in range(0, len(possible), _ROWS):
        rows = slice(first, first + _ROWS)
        apart = torch.zeros_like(mean[rows])
        for embeddings, compare in embedded:
            each = compare(embeddings[rows].float(), embeddings.float()) @ mean
            apart += each / each.mean(dim=1, keepdim=True)
        apart[torch.from_numpy(~possible[rows]).to(apart.device)] = torch.inf
        found.append(apart.argmin(dim=1).cpu())
    return torch.cat(found).numpy()
