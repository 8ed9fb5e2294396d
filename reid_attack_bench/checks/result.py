"""Result of one check of a victim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "fault"]

NOT_CHECKED = "not checked"
"""Name of the only result of a victim whose checks could not be run."""


@dataclass(frozen=True)
class CheckResult:
    """Result of one check.

    Attributes:
        name: name of the check, or NOT_CHECKED.
        level: "ok", "note" (hint for the user) or "fault".
        evidence: observation, with values.
        advice: how to fix it; empty if nothing is wrong.
    """

    name: str
    level: Level
    evidence: str
    advice: str = ""


def not_checked(reason: str) -> CheckResult:
    """The only result of a victim whose checks could not be run."""
    return CheckResult(NOT_CHECKED, "note", reason)
