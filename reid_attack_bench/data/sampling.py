"""P×K batches for ReID losses: P identities with K images of each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from reid_attack_bench.errors import BenchError


def pk_batches(identities: np.ndarray, p: int, k: int, generator: torch.Generator) -> Iterator[np.ndarray]:
    """Yield batches of P·K image indices, indefinitely; the K images of an identity are adjacent.

    Each pass visits every identity once, in random order; the P identities of a batch that spans two passes are still
    distinct. The images of an identity are also visited in random order; an identity with fewer than K images repeats
    some in a batch.

    Args:
        identities: identity of each image, int64 N.
        p: identities per batch.
        k: images per identity.
        generator: CPU generator of all random numbers.

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
            # identities left over from the last pass come first; their copies in the new pass come last
            fresh = shuffled(len(members))
            held = set(waiting)
            waiting += [i for i in fresh if i not in held] + [i for i in fresh if i in held]
        chosen, waiting = waiting[:p], waiting[p:]
        yield np.array([next(streams[identity]) for identity in chosen for _ in range(k)])
