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


class MissingWeightsError(BenchError):
    """Weights of zoo models are not in the weights folder.

    Args:
        names: the models.
        folder: the weights folder.
        zoo_file: the user's zoo file that lists them; empty for shipped ones.
    """

    def __init__(self, names: tuple[str, ...], folder: str, zoo_file: str = "") -> None:
        super().__init__(names, folder, zoo_file)  # what is needed to pass it between processes
        self.names, self.folder, self.zoo_file = names, folder, zoo_file

    @property
    def command(self) -> str:
        """The command that gets them."""
        zoo = f" --zoo {self.zoo_file}" if self.zoo_file else ""
        return f"reid-attack-bench weights get {' '.join(self.names)}{zoo}"

    def __str__(self) -> str:
        return f"weights of {', '.join(self.names)} are missing in {self.folder}: {self.command} (or --from DIR)"


def joined(errors: Iterable[MissingWeightsError]) -> BenchError:
    """One error of several: a single command for the models of each zoo file."""
    found: dict[tuple[str, str], list[str]] = {}
    for error in errors:
        found.setdefault((error.folder, error.zoo_file), []).extend(error.names)
    each = [MissingWeightsError(tuple(dict.fromkeys(names)), *place) for place, names in found.items()]
    return each[0] if len(each) == 1 else BenchError("; ".join(map(str, each)))


def nearest(wanted: str, known: Iterable[str]) -> str:
    """Say what `wanted` may have meant: " (did you mean 'pgd'?)", else the list of what there is."""
    names = sorted(known)
    close = difflib.get_close_matches(wanted, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return "known: " + (", ".join(names) if names else "none")
