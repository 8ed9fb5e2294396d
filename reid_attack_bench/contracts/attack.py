"""Attacks: the clean batch they are given and the images they return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from reid_attack_bench.contracts.threat import ThreatModel
from reid_attack_bench.contracts.training import State
from reid_attack_bench.contracts.victim import Victim

Need = Literal["gradients", "logits", "labels", "gallery"]

ADDED_LATER = {"added_later": True}
"""Metadata of a setting that a plug-in gained with a default that changes nothing: at its default it is no part of the
key of a step, so that what was stored before is found."""


@dataclass(frozen=True)
class ReferenceImages:
    """Clean images that an attack with the need "gallery" may read: the side of the data it does not perturb.

    Attributes: images uint8 RGB M×H×W×3; identities and cameras int64 M.
    """

    images: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Clean images to attack, with no more than the attack's needs declare.

    Attributes:
        images: float32 RGB N×3×H×W in [0, 1], exactly representable in 8 bits.
        identities: int64 N, or None unless the attack needs "labels".
        guides: None unless the attack needs "gallery".
    """

    images: Tensor
    identities: Tensor | None = None
    guides: ReferenceImages | None = None


class Attack(Protocol):
    """A frozen dataclass of settings with `craft`, and `fit` where it must learn first.

    Attributes:
        needs: what it asks of the source and the data: "gradients", "logits", "labels", "gallery".
        citation: where it was published.

    An attack never sees a target. `craft` must draw every random number from `generator`.
    An attack that learns also has

        fit(source: Victim, data: TrainingData, threat: ThreatModel, context: FitContext) -> State

    and receives that state in `craft`; `data` is what the source was trained on.

    A registered class may declare `version: ClassVar[int]`, as a Victim may: raise it when the results change. The
    random numbers that it is given stay the same.

    For the audit of a victim it may say its `family`: what it climbs, such as "logits", in `steps` steps (1 without).
    Attacks of one family are compared by their steps, and each by its epsilon.

    For the time left it may say how much work it is, in forward passes of one image (a backward pass counts as two):
    `craft_work` per image and `fit_work` in all. They change no result.
    """

    @property
    def needs(self) -> frozenset[Need]: ...

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        """Adversarial images, float32 N×3×H×W in [0, 1], within `threat` of `batch.images`."""
        ...
