"""An attack as fit and craft steps take it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reid_attack_bench.adversary import adaptive
from reid_attack_bench.adversary.cost import Cost
from reid_attack_bench.contracts import Attack, LearnedAttack, ThreatModel, threat_values
from reid_attack_bench.steps.step import Configured, Step


@dataclass(frozen=True)
class AttackRun:
    """One attack under one threat model with one seed.

    Attributes:
        name: label of the attack in the suite.
        use: the attack and its settings.
        adaptive: draws of a randomised source to average when the attack adapts to its defence; 0 without adaptation.
        with_seed: the label names the seed, since the attack runs with several.
        defended_only, protocol, relations: as in AttackEntry.
    """

    name: str
    use: Configured[Attack]
    threat: ThreatModel
    seed: int
    adaptive: int = 0
    with_seed: bool = False
    defended_only: bool = False
    protocol: str = ""
    relations: tuple[str, ...] = ()

    @property
    def attack(self) -> Attack:
        return self.use.plugin

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(sorted(self.attack.needs))

    @property
    def label(self) -> str:
        """For people: "pgd 8/255 k50 seed 1"."""
        threat = self.threat
        parts = [f"{self.name} {threat.epsilon}/255"]
        parts += [f"{letter}{limit}" for letter, limit in (("k", threat.pixels), ("q", threat.queries)) if limit]
        parts += [f"to {threat.impersonate}"] if threat.impersonate else []
        return " ".join([*parts, *([f"seed {self.seed}"] if self.with_seed else [])])

    @property
    def uses_source(self) -> bool:
        """True if crafting depends on the source; otherwise it is done once for all sources."""
        return bool(self.needs)

    @property
    def iterations(self) -> int:
        """Gradient steps per image. `steps` means something else for an attack that learns or is of no family."""
        return (
            self.attack.steps_within(self.threat)
            if self.attack.family and not isinstance(self.attack, LearnedAttack)
            else 1
        )

    def config(self, threat: ThreatModel) -> dict[str, Any]:
        """Config of a step that sees `threat`, a part of the threat model."""
        adapted = {"adaptive": self.adaptive} if self._adapts else {}
        asked = {"attack": self.use.key, "options": self.use.options, "threat": threat_values(threat)}
        return {**asked, "seed": self.seed, **adapted}

    @property
    def implementation(self) -> dict[str, Any]:
        return {"code": self.use.code, **({"adaptation": adaptive.VERSION} if self._adapts else {})}

    @property
    def _adapts(self) -> bool:
        return bool(self.adaptive and self.needs)


def note_lost_cameras(step: Step, cost: Cost, note: Callable[[str], None]) -> None:
    """Say that a source which uses cameras was not told those of all images of an attack."""
    if cost.without_camera:
        note(
            f"{step.label}: the source was not told the camera of {cost.without_camera:,} of {cost.forward:,} images, "
            "because the data set has none or the attack made them without torch; it took them for unknown"
        )
