"""Attacks: the batch of clean images they receive and the adversarial images they return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from reid_attack_bench.contracts.oracle import Oracle
from reid_attack_bench.contracts.threat import ThreatModel
from reid_attack_bench.contracts.training import FitContext, State, TrainingData
from reid_attack_bench.contracts.victim import Victim
from reid_attack_bench.errors import AccessError

Need = Literal["gradients", "logits", "labels", "gallery", "embedding", "distances", "ranking"]

Reads = Literal["embeddings", "distances", "logits"]

ADDED_LATER = {"added_later": True}
"""Field metadata for a setting added to a plug-in after results were stored. Its default must not change any result: at
its default the setting is left out of the step's key, so stored results are still found."""


@dataclass(frozen=True)
class ReferenceImages:
    """Clean images given to an attack that needs "gallery": the side of the data that it does not perturb.

    Attributes:
        images: uint8 RGB, M×H×W×3.
        identities: int64 M.
        cameras: int64 M.
        embedded: embeddings that an attack makes of them once, kept for its next batches.
    """

    images: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray
    embedded: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Targets:
    """Identities to impersonate, and images of them that the attacker has.

    Attributes:
        identities: int64 N, the target identity of each image of a batch; never its own.
        guides: clean query images, among them at least one of each target identity, never the gallery that is
            evaluated. An attack uses those whose identity is a target. One object for all batches.
    """

    identities: Tensor
    guides: ReferenceImages


@dataclass(frozen=True)
class Batch:
    """Clean images to attack, with only the extra information that the attack's needs and its threat model declare.

    Attributes:
        images: float32 RGB N×3×H×W in [0, 1], exactly representable in 8 bits.
        identities: int64 N, or None unless the attack needs "labels".
        references: None unless the attack needs "gallery".
        targets: None unless the threat model is to impersonate.
    """

    images: Tensor
    identities: Tensor | None = None
    references: ReferenceImages | None = None
    targets: Targets | None = None


DRAW_BATCH = 64
"""Images of a batch whose size may decide the random numbers of an image, see `Attack.draws_each_image`."""


class Attack(ABC):
    """Base class of attacks. Subclass it as a frozen dataclass of settings; define `needs` and `craft`.

    An attack never sees a target model.

    Attributes:
        version: raise it when the results of a registered class change; the random numbers stay the same. None, or one
            that is only inherited, stands for a digest of the source file, so that every edit makes new results.
        citation: publication (arXiv number, or venue and year).
        family: loss family, such as "logits" or "embedding"; the audit compares attacks within a family.
        steps: gradient steps per image, by which the audit compares attacks of one family. An attack without a family
            or one that learns counts as a single step, whatever this says.
        impersonates: whether it can follow ThreatModel.impersonate; it then reads Batch.targets.
        takes_members: for an attack that needs logits: whether it reads those of each member of an Ensemble. If not, it
            is crafted in its form without logits on several sources.
    """

    version: ClassVar[int | None] = None
    citation: ClassVar[str] = ""
    family: ClassVar[str] = ""
    steps: int = 1
    impersonates: ClassVar[bool] = False
    takes_members: ClassVar[bool] = False

    @property
    def craft_work(self) -> float:
        """Work per image in forward passes; a backward pass counts as two. It only serves to estimate run times."""
        return 3.0

    @property
    @abstractmethod
    def needs(self) -> frozenset[Need]:
        """Requirements on source and data. The harness gives nothing else; what is missing raises AccessError.

        "gradients" and "logits" of the source; "labels", the identities of the attacked images; "gallery", the clean
        images of the other side; for a QueryAttack one of "embedding", "distances" and "ranking".
        """

    @property
    def reads(self) -> Reads:
        """What it reads of a source, which decides whether it can follow a victim with a comparison of its own.

        "distances": embeddings only as arguments of `source.compare` and of `contracts.paired`, so it follows any
        comparison. "logits": no embeddings. "embeddings": their values; on a source that compares in a way of its own
        they are features side by side, whose distance means nothing, so the attack is not applicable there.
        """
        return "embeddings"

    def steps_within(self, threat: ThreatModel) -> int:
        """`steps` under `threat`, for an attack whose number of steps depends on the budget."""
        return self.steps

    def draws_each_image(self, threat: ThreatModel) -> bool:
        """Whether the random numbers of an image under `threat` do not depend on how many others are in its batch.

        True if `craft` draws nothing, or one tensor of uniform numbers whose first axis is the images, or by
        `attacks.common.draws.Draws`. It is then handed batches of the suite's `batch_size`. Any other attack is handed
        those of its `draw_batch`, and a smaller `batch_size` limits the passes of the source alone.
        """
        return False

    def without_logits(self) -> Attack | None:
        """The form of this attack for a source without logits, which the harness then uses; None if it has none."""
        return None

    @abstractmethod
    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        """Craft adversarial images.

        Args:
            source: the white-box model, with what `needs` declares; None at run time for an attack without needs.
            batch: the clean images.
            threat: the budget.
            generator: CPU generator from which every random number must be drawn.
            state: the result of `fit` for a LearnedAttack, on the device of the run; None otherwise.

        Returns:
            float32 N×3×H×W in [0, 1], within `threat` of `batch.images`.
        """


class LearnedAttack(Attack):
    """Base class of attacks that are trained before they craft, such as generators and universal perturbations."""

    @property
    def fit_work(self) -> float:
        """Work of `fit` in forward passes of one image; it only serves to estimate run times."""
        return 1000.0

    @abstractmethod
    def fit(self, source: Victim, data: TrainingData, threat: ThreatModel, context: FitContext) -> State:
        """Train against `source` within the budget of `threat`.

        Args:
            source: the white-box model.
            data: the training split that the source was trained on.
            threat: epsilon and pixels only; see `fit_threat`.
            context: device, seeded generator, progress and checkpoint.

        Returns:
            Named tensors, passed to `craft` as `state`.
        """


class QueryAttack(Attack):
    """Base class of attacks that see only answers of the source. Define `needs`, one form of answer, and `search`."""

    @property
    def reads(self) -> Reads:
        """Distances and rankings are those of the system, whatever its comparison; embeddings see `Attack.reads`."""
        return "embeddings" if "embedding" in self.needs else "distances"

    @abstractmethod
    def search(self, oracle: Oracle, batch: Batch, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        """Craft adversarial images from answers.

        Args:
            oracle: answers about this batch, at most `threat.queries` for each of its images.
            batch: the clean images.
            threat: the budget.
            generator: CPU generator from which every random number must be drawn.

        Returns:
            float32 N×3×H×W in [0, 1], within `threat` of `batch.images`.
        """

    def craft(
        self, source: Victim, batch: Batch, threat: ThreatModel, generator: torch.Generator, state: State | None = None
    ) -> Tensor:
        """Not for query attacks; see `search`."""
        raise AccessError(f"{type(self).__name__} sees answers of an oracle and no model: call search")
