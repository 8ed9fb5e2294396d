"""Flags of the audit: names, severities, and selections for reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from reid_attack_bench.steps.reproduce import NOT_REPRODUCED

Severity = Literal["red", "amber", "note"]
"""red: ranked below the line of the leaderboard; amber: shown in the leaderboard; note: what was not examined."""

FAILS_CHECK = "fails check"
"""Start of the name of the flag for a fault; the name of the check follows."""

SEVERITIES: Mapping[str, Severity] = {
    NOT_REPRODUCED: "red",
    "never attacked white-box": "red",
    FAILS_CHECK: "red",
    "attack changes nothing": "red",
    "zero gradients": "red",
    "randomised without EOT": "red",
    "detector not attacked": "red",
    "attack without effect": "red",
    "gradients no better than noise": "red",
    "queries stronger than gradients": "red",
    "transfer stronger than white-box": "red",
    "iterations weaker than one step": "red",
    "more steps do not help": "red",
    "larger epsilon does not hurt": "red",
    "restarts change the result": "red",
    "unbounded attack fails": "red",
    "more restarts": "amber",
    "not checked": "amber",
    "unbounded attack not run": "note",
    "not audited": "note",
}
"""Name of every flag → severity."""


@dataclass(frozen=True)
class Flag:
    """An audit flag of a victim on a data set.

    Attributes:
        name: a key of SEVERITIES; "fails check: gradient" for a fault.
        evidence: the values, or what is missing.
    """

    victim: str
    dataset: str
    name: str
    evidence: str

    @property
    def severity(self) -> Severity:
        return SEVERITIES[self.name.partition(":")[0]]


Names = dict[tuple[str, str], list[str]]
"""(victim, data set) → names of flags."""


def unverified(flags: Iterable[Flag]) -> Names:
    """Names of the red flags; victims without any are left out."""
    return _names(flags, "red")


def doubtful(flags: Iterable[Flag]) -> Names:
    """Names of the amber flags; victims without any are left out."""
    return _names(flags, "amber")


def _names(flags: Iterable[Flag], severity: Severity) -> Names:
    found: dict[tuple[str, str], dict[str, None]] = {}
    for flag in flags:
        if flag.severity == severity:
            found.setdefault((flag.victim, flag.dataset), {})[flag.name] = None
    return {place: list(names) for place, names in found.items()}


def notes(flags: Iterable[Flag]) -> list[str]:
    """What was not examined and the victims concerned, one line per reason."""
    who: dict[str, list[str]] = {}
    for flag in flags:
        if flag.severity == "note":
            who.setdefault(flag.evidence, []).append(flag.victim)
    return [f"{evidence}: {', '.join(dict.fromkeys(victims))}" for evidence, victims in who.items()]
