"""A step: one unit of work of a plan, addressed by its content."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.files import digest_of

Made = TypeVar("Made", covariant=True)

Facts = dict[str, Any]
"""Summary of a step's result in the manifest; plain values."""

Progress = Callable[[int, int, str], None]
"""Called as progress(done, total, note)."""


@dataclass(frozen=True)
class Step:
    """One unit of work. Each kind has a constructor in the module of its runner, see `steps.kinds`.

    Attributes:
        kind: key of `kinds.KINDS`.
        version: version of the step's code, part of the key. Raise it when a step would give another result for the
            same inputs.
        about: the data set, the victim, or the attack with its source and data set; for people.
        config: what is asked for; plain values. With the parents it decides the key and the seed.
        implementation: what else decides the result: versions of code, precision, batch size; plain values. It decides
            the key alone, so the next version of an attack draws the same random numbers.
        parents: role → step whose result this one reads.
        after: keys of steps that must have succeeded although nothing is read from them (the clean Rank-1 gate).
        plugin: the live object that does the work (data source, recipe, victim, attack); config holds its name.
        action: verb of the label; the kind if empty.
        work: estimate, in forward passes of one image.
    """

    kind: str
    version: int
    about: str
    config: Mapping[str, Any] = field(default_factory=dict)
    implementation: Mapping[str, Any] = field(default_factory=dict)
    parents: Mapping[str, Step] = field(default_factory=dict, repr=False)
    after: tuple[str, ...] = ()
    plugin: Any = None
    action: str = ""
    work: float = 0.0

    @property
    def label(self) -> str:
        """For people: "fit pgd 8/255 against toy@plaza"."""
        return f"{self.action or self.kind} {self.about}"

    @functools.cached_property
    def inputs(self) -> dict[str, str]:
        """Role → key of the parent."""
        return {role: step.key for role, step in self.parents.items()}

    @functools.cached_property
    def key(self) -> str:
        """Address of the result in the store: a digest of everything that decides it."""
        settings = {**self.config, **self.implementation}
        return digest_of([self.kind, self.version, settings, self.inputs])

    @property
    def record(self) -> dict[str, Any]:
        """Values of the step itself in the manifest of its result."""
        return {
            "label": self.label,
            "config": self.config,
            "implementation": self.implementation,
            "inputs": dict(self.inputs),
        }

    @functools.cached_property
    def meaning(self) -> str:
        """Digest of what is asked for, however it is computed. Steps with the same key have the same meaning."""
        return digest_of([self.kind, self.config, {role: step.meaning for role, step in self.parents.items()}])

    @property
    def seed(self) -> int:
        """Seed of every random number that the step draws: 60 bits of its meaning."""
        return int(self.meaning[:15], 16)


@dataclass(frozen=True)
class Configured(Generic[Made]):
    """A plug-in with its settings.

    Attributes:
        key: registered name, or FILE.py:NAME.
        code: version of the registered class, or a digest of its source.
        options: all settings, defaults included, as plain values.
        plugin: the instance.
    """

    key: str
    code: str
    options: Mapping[str, Any]
    plugin: Made


SOURCE = "source"
"""Role of the source of a fit or craft step; the second and later ones of several are "source_1", "source_2", …"""


def source_parents(sources: Sequence[Step]) -> dict[str, Step]:
    """Role → source, for the parents of a fit or craft step."""
    return {f"{SOURCE}_{i}" if i else SOURCE: source for i, source in enumerate(sources)}


def source_keys(step: Step) -> list[str]:
    """Keys of the sources of a fit or craft step, in order; empty for one that uses none."""
    return [source.key for source in sources_of(step)]


def sources_of(step: Step) -> list[Step]:
    """The sources of a fit or craft step, in order; none for one that uses none."""
    return [parent for role, parent in step.parents.items() if role == SOURCE or role.startswith(f"{SOURCE}_")]


def source_names(sources: Sequence[Step]) -> str:
    """For people: "toy@plaza", or "toy@plaza+toy@station"."""
    return "+".join(source.about for source in sources)


def threat_of(step: Step) -> ThreatModel:
    """The threat model in the config of a fit or craft step."""
    return ThreatModel(**step.config["threat"])


def perturbs_of(step: Step) -> str:
    """The side that a fit or craft step perturbs: "query", "gallery" or "both"."""
    return str(step.config["threat"].get("perturbs", ThreatModel.perturbs))
