"""One unit of work of a plan, addressed by its content."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.files import digest_of

STEP_VERSIONS = {
    "data": 1,  # decode or render every image once
    "victim": 2,  # train a victim, or load and examine a ready one
    "clean": 1,  # embeddings of query and gallery
    "clean-rank": 2,  # ranking without an attack
    "fit": 2,  # train an attack that learns
    "craft": 2,  # adversarial images, 8 bits, within budget
    "measure": 2,  # how visible they are
    "features": 1,  # their embeddings on one target
    "rank": 2,  # ranking under attack
}
"""Version of each step's code: raise it when a step would give another result for the same inputs."""


@dataclass(frozen=True)
class Step:
    """One unit of work.

    Attributes:
        kind: one of STEP_VERSIONS.
        label: for people.
        config: what is asked for; plain values. With the parents it decides the key and the seed.
        implementation: what else decides the result: versions of code, precision, batch size; plain values. It decides
            the key alone, so that the next version of an attack draws the same random numbers.
        parents: role → step whose result this one reads.
        after: steps that must have succeeded first though nothing is read from them (the clean Rank-1 gate).
        subject: the live object that does the work (data source, recipe, victim, attack); stands in config by name.
        work: estimate, in forward passes of one image.
    """

    kind: str
    label: str
    config: Mapping[str, Any]
    implementation: Mapping[str, Any] = field(default_factory=dict)
    parents: Mapping[str, Step] = field(default_factory=dict, repr=False)
    after: tuple[str, ...] = ()
    subject: Any = None
    work: float = 0.0

    @functools.cached_property
    def inputs(self) -> dict[str, str]:
        """Role → key of the step that makes it."""
        return {role: step.key for role, step in self.parents.items()}

    @functools.cached_property
    def key(self) -> str:
        """Address of the result in the store: a digest of everything that decides it."""
        settings = {**self.config, **self.implementation}
        return digest_of([self.kind, STEP_VERSIONS[self.kind], settings, self.inputs])

    @functools.cached_property
    def meaning(self) -> str:
        """Digest of what is asked for, however it is computed. Steps of one key have one meaning."""
        return digest_of([self.kind, self.config, {role: step.meaning for role, step in self.parents.items()}])

    @property
    def seed(self) -> int:
        """Seed of every random number that the step draws, 60 bits of its meaning."""
        return int(self.meaning[:15], 16)


Facts = dict[str, Any]
"""What a step says of its result in the manifest: plain values."""

Progress = Callable[[int, int, str], None]


def threat_of(step: Step) -> ThreatModel:
    return ThreatModel(**step.config["threat"])
