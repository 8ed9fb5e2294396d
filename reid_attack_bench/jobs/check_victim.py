"""Find the victim that check-victim checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reid_attack_bench import registry
from reid_attack_bench.contracts import Defence, Recipe, Victim
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.suites.suite import Suite


def find_victim(name: str, options: Mapping[str, Any], suite: Suite | None = None) -> Victim:
    """A ready victim by name.

    Args:
        name: registered name, FILE.py:NAME, or with a suite the label of one of its victims.
        options: settings; they override those of the suite.
        suite: suite of which `name` is a label.

    Raises:
        BenchError: an unknown victim, or one that must be trained first.
    """
    if suite is not None:
        entries = {entry.label: entry for entry in suite.victims}
        if name not in entries:
            raise BenchError(f"suite {suite.name} has no victim '{name}': {nearest(name, entries)}")
        name, options = entries[name].use, {**entries[name].options, **options}
    return ready(registry.find("victim", name).build(options), name)


def ready(subject: Any, key: str) -> Victim:
    """`subject` itself if it is a victim that needs no training.

    Raises:
        BenchError: it must be trained first, or it is not a victim.
    """
    if isinstance(subject, Victim):
        return subject
    if isinstance(subject, (Recipe, Defence)):
        what = "is a defence of another victim" if isinstance(subject, Defence) else "must be trained first"
        raise BenchError(
            f"check-victim requires a trained model, but {key} {what}: it is checked when a suite makes it"
        )
    raise BenchError(f"{key} is a {type(subject).__name__}, not a reid_attack_bench.contracts.Victim")
