"""Audit: signs of gradient masking and of weak attacks in the cells of a victim, and faults of the victim itself.

The criteria follow Athalye et al. (ICML 2018, arXiv 1802.00420), Carlini et al. (arXiv 1902.06705) and, for the reasons
for which adaptive attacks fail, Tramèr et al. (NeurIPS 2020, arXiv 2002.08347). docs/audit.md explains every rule.

Differences are paired over queries, in points of mAP, with a 95 % bootstrap interval over identities; attacks with
several seeds are averaged over them.
"""

from __future__ import annotations

from collections.abc import Iterator

from reid_attack_bench.checks.result import NOT_CHECKED
from reid_attack_bench.report import rows
from reid_attack_bench.report.analysis.audit import comparison, masking, strength
from reid_attack_bench.report.analysis.audit.arms import BROKEN, MARGIN, arms_of
from reid_attack_bench.report.analysis.audit.flags import (
    FAILS_CHECK,
    NOT_REPRODUCED,
    SEVERITIES,
    Flag,
    doubtful,
    notes,
    unverified,
)
from reid_attack_bench.report.analysis.audit.subject import Found, Subject
from reid_attack_bench.report.results import CellRow, CleanRow, Results

__all__ = ["BROKEN", "MARGIN", "SEVERITIES", "Flag", "audit", "doubtful", "notes", "unverified"]

_ORDER = ("red", "amber", "note")


def audit(results: Results) -> list[Flag]:
    """Flags of every victim on its training data set, red flags first within a victim."""
    flags = []
    for clean in rows.contenders(results):
        if clean.ok:
            found = [Flag(clean.victim, clean.dataset, *each) for each in dict.fromkeys(_found(results, clean))]
            flags += sorted(found, key=lambda flag: _ORDER.index(flag.severity))
        elif clean.status.startswith(NOT_REPRODUCED):
            flags.append(Flag(clean.victim, clean.dataset, NOT_REPRODUCED, clean.status.partition(": ")[2]))
    return flags


def _found(results: Results, clean: CleanRow) -> Iterator[Found]:
    yield from _checks(clean)
    cells = [cell for cell in results.cells if cell.ok and _concerns(cell, clean)]
    yield from _unchanged(cells, clean, {row.victim for row in results.clean})
    if "white-box" not in results.relations:
        yield "not audited", "the suite has no white-box attacks, so the gradients were not examined"
        return
    # an attack that impersonates need not hide, so it says nothing of how well attacks that hide do
    subject = Subject(results, clean, arms_of(results, (cell for cell in cells if not cell.impersonate)))
    if not subject.own:
        if any("gradients" in cell.needs for cell in results.cells) and not subject.fell:
            why = "no gradient-based white-box attack succeeded; transfer attacks give an upper bound only"
            yield "never attacked white-box", why
        return
    yield from masking.found(subject)
    yield from comparison.found(subject)
    yield from strength.found(subject)


def _concerns(cell: CellRow, clean: CleanRow) -> bool:
    return (cell.target, cell.dataset, cell.perturbs) == (clean.victim, clean.dataset, "query")


def _checks(clean: CleanRow) -> Iterator[Found]:
    """Faults of the victim, see `checks.check`. That there are none proves nothing if it was not checked."""
    for check in clean.checks:
        if check.level == "fault":
            yield f"{FAILS_CHECK}: {check.name}", check.evidence
        elif check.name == NOT_CHECKED:
            yield NOT_CHECKED, f"the checks of the victim were not run: {check.evidence}"


def _unchanged(cells: list[CellRow], clean: CleanRow, victims: set[str]) -> Iterator[Found]:
    """Attacks that return the clean images. It is the source that stops them; a target if the source has no row."""
    for cell in cells:
        if cell.epsilon > 0 and cell.value("linf") == 0 and (cell.source == clean.victim or cell.source not in victims):
            where = f"{cell.setting.variant} at ε = {cell.epsilon} from {cell.source or 'no source'}"
            yield "attack changes nothing", f"{where}: the largest change of all images is 0"
