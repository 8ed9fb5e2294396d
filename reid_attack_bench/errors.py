"""Errors that are meant for a person: one line saying what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """A mistake or a condition that the user can act on; the command line prints it as one line."""


class BudgetError(BenchError):
    """An attack returned images outside its threat model."""


class AccessError(BenchError):
    """An attack asked for more than its access allows."""


class VictimError(BenchError):
    """A victim broke its contract (NaN, wrong shape, no gradient)."""


def nearest(wanted: str, known: Iterable[str]) -> str:
    """Say what `wanted` may have meant: " (did you mean 'pgd'?)", else the list of what there is."""
    names = sorted(known)
    close = difflib.get_close_matches(wanted, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return "known: " + (", ".join(names) if names else "none")
