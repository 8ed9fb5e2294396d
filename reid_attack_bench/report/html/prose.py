"""Text of report.html."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from reid_attack_bench.report import labels, mean_drop, rows, transfer
from reid_attack_bench.report.analysis import audit, defences, findings, rank_order
from reid_attack_bench.report.analysis.conclude import Conclusions
from reid_attack_bench.report.analysis.leaderboard import order_in_words
from reid_attack_bench.report.record import RunRecord
from reid_attack_bench.report.results import NOT_APPLICABLE, CellRow, Results


def prose(
    results: Results,
    concluded: Conclusions,
    cells: Sequence[CellRow],
    definitions: Sequence[str],
    *,
    has_examples: bool,
) -> dict[str, Any]:
    """Variables of the page template."""
    reasons = Counter(
        cell.status for cell in results.cells if not cell.ok and not cell.status.startswith(NOT_APPLICABLE)
    )
    raised = [flag for flag in concluded.flags if flag.severity != "note"]
    notes = audit.notes(concluded.flags)
    gains = [defences.in_words(row) for row in rows.rows(concluded.gains)]
    claims = [findings.in_words(each) for each in concluded.claims]
    sections = [("leaderboard", "Leaderboard")]
    sections += [("audit", "Audit")] if raised or notes else []
    sections += [("defences", "Defences")] if gains else []
    sections += [("findings", "Findings")] if claims else []
    sections += [("orders", "Order of attacks")] if len(concluded.orders) else []
    sections += [("matrix", "Matrix"), ("curves", "Curves"), ("cells", "Cells"), ("run", "Run")]
    sections += [("definitions", "Definitions")]
    if has_examples:
        sections.insert(-3, ("gallery", "Gallery"))
    return {
        "suite": results.suite,
        "sections": sections,
        "has_examples": has_examples,
        "banners": [(heading, labels.MARKS[mark]) for mark, heading in labels.banners(results).items()],
        "summary": summary(results, cells),
        "missing": sorted(reasons.items(), key=lambda item: (-item[1], item[0])),
        "missing_count": sum(reasons.values()),
        "cell_count": len(results.cells),
        "flags": raised,
        "audit_notes": notes,
        "gains": gains,
        "gain_heads": defences.WORDS,
        "claims": claims,
        "claim_heads": findings.WORDS,
        "claim_introduction": findings.INTRODUCTION,
        **_across(results, concluded),
        "headline": results.headline_epsilon,
        "order": order_in_words(results),
        "notes": results.notes,
        "description": " ".join(results.record.suite.description.split()),
        "facts": facts_of(results.record),
        "times": _times(results.record),
        "command": results.record.command,
        "seed": results.seed,
        "definitions": [tuple(text.replace("**", "").split(": ", 1)) for text in definitions],
    }


def _across(results: Results, concluded: Conclusions) -> dict[str, Any]:
    """What compares attacks across targets and data sets."""
    return {
        "transfers": transfer.lines(results, concluded.controls),
        "transfer_heads": transfer.HEADS,
        "transfer_introduction": transfer.INTRODUCTION,
        "controls": transfer.control_lines(results),
        "control_heads": transfer.CONTROL_HEADS,
        "orders": [rank_order.in_words(row) for row in rank_order.shown(concluded.orders)],
        "order_heads": rank_order.WORDS,
        "order_introduction": rank_order.INTRODUCTION,
        "reversals": rank_order.reversals(concluded.orders),
        "mean_drops": mean_drop.lines(concluded.mean_drops, concluded.controls.names),
        "mean_drop_heads": mean_drop.HEADS,
        "mean_drop_introduction": mean_drop.INTRODUCTION,
    }


def summary(results: Results, cells: Sequence[CellRow]) -> str:
    counts = {name: len({getattr(cell, name) for cell in cells}) for name in ("attack", "source", "target")}
    counted = ", ".join(f"{count} {_plural(name, count)}" for name, count in counts.items())
    data = "; ".join(labels.describe(results, name) for name in labels.datasets(results))
    return f"{counted}, {len(results.cells):,} cells. {data}. Seed {results.seed}."


def _plural(word: str, count: int) -> str:
    return word if count == 1 else word + "s"


def facts_of(record: RunRecord) -> list[tuple[str, str]]:
    machine = record.machine
    facts = [
        ("Machine", f"{machine.gpu or 'no GPU'}, {machine.cores} cores, {machine.system}" if machine else ""),
        ("Device", record.device),
        ("Versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
        ("Bench", record.bench),
    ]
    return [fact for fact in facts if fact[1]]


def _times(record: RunRecord) -> list[tuple[str, int, str]]:
    """(kind of step, count, total seconds)."""
    counts: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    for step in record.steps:
        counts[step.kind] += 1
        seconds[step.kind] = seconds.get(step.kind, 0.0) + (step.seconds or 0.0)
    return [(kind, counts[kind], f"{seconds[kind]:,.1f}") for kind in counts]
