"""Verification: what a tracker sees that links two images whose distance is below a threshold.

The threshold is fixed on clean images, so that a given share of impostor pairs (query and gallery image of different
identities) is accepted: the false positive rate, FPR. The measure is the share of genuine pairs (same identity, not
junk) that is accepted: the true positive rate, TPR. Under attack the threshold stays.

With k the largest whole number of impostor pairs within the FPR, a pair is accepted if its distance is below that of
the (k + 1)-th nearest impostor pair, so at most k are accepted, ties included. Where k is 0 there are too few impostor
pairs to tell, and the measure has no value.

MSMT17 has 958 million pairs. Distances are read in blocks while they are ranked, and only the nearest impostor pairs
are kept: at most a fiftieth of all, besides one block.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from reid_attack_bench.metrics.blocks import as_floats
from reid_attack_bench.metrics.pairs import SameIdentity

RATES = {"tpr_fpr1e3": 1000, "tpr_fpr1e2": 100}
"""Measure → one in how many impostor pairs may be accepted."""


class PairDistances:
    """Distances of genuine pairs, and of the nearest impostor pairs, taken from blocks of rows that pass through.

    Args:
        same: pairs of one identity, as in the ranking of the same blocks.
        impostors: whether impostor pairs are wanted.
    """

    def __init__(self, same: SameIdentity, *, impostors: bool) -> None:
        self._same = same
        self._genuine: list[np.ndarray] = []
        self._owners: list[np.ndarray] = []
        self._count = len(same.query) * len(same.gallery) - len(same)
        self._nearest = _Nearest(self._count // min(RATES.values()) + 1) if impostors else None

    def watch(self, blocks: Iterator[Tensor] | Iterator[np.ndarray]) -> Iterator[Tensor | np.ndarray]:
        """The blocks as they are, each after its distances were taken."""
        start = 0
        for given in blocks:
            block = as_floats(given)
            rows, columns = self._same.pairs(start, len(block))
            kept = ~self._same.junk(start + rows, columns)
            self._genuine.append(_fetched(block[rows[kept], columns[kept]]))
            self._owners.append(start + rows[kept])
            if self._nearest is not None:
                near = block < self._nearest.bound
                near[rows, columns] = False
                self._nearest.add(_fetched(block[near]))
            start += len(block)
            yield given

    def genuine(self, refused: np.ndarray | None = None) -> np.ndarray:
        """Distances of the M genuine pairs, by query; infinite for queries in `refused` (bool Q), never accepted."""
        distances = np.concatenate(self._genuine)
        return distances if refused is None else np.where(refused[np.concatenate(self._owners)], np.inf, distances)

    def thresholds(self) -> np.ndarray:
        """Distance below which a pair is accepted, for each of RATES; NaN where there are too few impostor pairs."""
        assert self._nearest is not None
        nearest = self._nearest.sorted()
        places = [self._count // rate for rate in RATES.values()]
        found = [nearest[place] if place < len(nearest) else np.inf for place in places]
        return np.where(np.array(places) > 0, np.array(found, nearest.dtype), np.nan)


def true_positive_rates(genuine: np.ndarray, thresholds: np.ndarray) -> dict[str, float | None]:
    """Measure → share of genuine pairs that is accepted, in %, mean over draws; None without a threshold.

    Args:
        genuine: distances D×M of the genuine pairs, for D draws of a randomised victim.
        thresholds: D×2, of the same draws on clean images.
    """
    accepted = (genuine[:, :, None] < thresholds[:, None, :]).mean(axis=(0, 1)) * 100.0
    known = ~np.isnan(thresholds).any(axis=0)
    return {name: float(accepted[i]) if known[i] else None for i, name in enumerate(RATES)}


class _Nearest:
    """The `count` smallest of all values added, in a buffer of twice that size.

    Attributes:
        bound: values that are not below it are of no use.
    """

    def __init__(self, count: int) -> None:
        self.count, self.held, self.bound = count, 0, np.inf
        self.buffer = np.empty(0, np.float32)

    def add(self, values: np.ndarray) -> None:
        if len(self.buffer) == 0:
            self.buffer = np.empty(2 * self.count, values.dtype)
        while len(values):
            part = values[: len(self.buffer) - self.held]
            self.buffer[self.held : self.held + len(part)] = part
            self.held += len(part)
            values = values[len(part) :]
            if self.held == len(self.buffer):
                self.buffer.partition(self.count - 1)
                self.held, self.bound = self.count, float(self.buffer[self.count - 1])
                values = values[values < self.bound]

    def sorted(self) -> np.ndarray:
        return np.sort(self.buffer[: self.held])[: self.count]


def _fetched(values: Tensor | np.ndarray) -> np.ndarray:
    return values if isinstance(values, np.ndarray) else values.cpu().numpy()
