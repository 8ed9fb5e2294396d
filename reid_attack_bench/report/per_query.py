"""Outcome of each query of one ranking."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


def _none() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True)
class PerQuery:
    """Per-query outcome of a ranking, N queries.

    Attributes:
        hit: float in [0, 1], Rank-1 hit; of a randomised victim the mean over draws. A query that a detector refuses
            is a miss.
        hit10: the same for Rank-10; by default not known, and empty.
        ap: float in [0, 1], average precision; 0 for a query that is refused.
        valid: bool; whether the gallery has a correct match.
        identities: int64, of the queries; by default each is of its own.
        hit_as_clean, ap_as_clean: the same where a refused adversarial query counts as its clean version; by default,
            without a detector, `hit` and `ap`.
    """

    hit: np.ndarray
    ap: np.ndarray
    valid: np.ndarray
    identities: np.ndarray = field(default_factory=_none)
    hit_as_clean: np.ndarray = field(default_factory=_none)
    ap_as_clean: np.ndarray = field(default_factory=_none)
    hit10: np.ndarray = field(default_factory=_none)

    def __post_init__(self) -> None:
        defaults = {"identities": np.arange(len(self.hit)), "hit_as_clean": self.hit, "ap_as_clean": self.ap}
        for name, value in defaults.items():
            if len(getattr(self, name)) == 0:
                object.__setattr__(self, name, value)
