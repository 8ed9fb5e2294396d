"""P×K batches: P identities with K images each, as ReID losses need them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from reid_attack_bench.errors import BenchError


def pk_batches(identities: np.ndarray, p: int, k: int, generator: torch.Generator) -> Iterator[np.ndarray]:
    """Yield for ever arrays of P·K indices: P different identities, their K images next to each other.

    Every identity comes once before any comes again, except that the P identities of one batch are always
    different ones. An identity's images are used up before one comes again; with fewer than K images some
    are repeated within a batch.

    Raises:
        BenchError: fewer than P identities.
    """
    members = [np.flatnonzero(identities == identity) for identity in np.unique(identities)]
    if len(members) < p:
        raise BenchError(f"a batch needs {p} identities but the training data has {len(members)}: lower P")

    def shuffled(count: int) -> list[int]:
        return torch.randperm(count, generator=generator).tolist()

    def images_of(identity: int) -> Iterator[int]:
        while True:
            for position in shuffled(len(members[identity])):
                yield int(members[identity][position])

    streams = [images_of(identity) for identity in range(len(members))]
    waiting: list[int] = []
    while True:
        if len(waiting) < p:
            # The left-over identities come first; the new round's copies of them wait behind.
            fresh = shuffled(len(members))
            held = set(waiting)
            waiting += [i for i in fresh if i not in held] + [i for i in fresh if i in held]
        chosen, waiting = waiting[:p], waiting[p:]
        yield np.array([next(streams[identity]) for identity in chosen for _ in range(k)])
