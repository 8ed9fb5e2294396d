"""Labels that are given as text, numbered."""

from __future__ import annotations

import re
from collections.abc import Iterable


def label_key(text: str) -> tuple[int, int, str]:
    """Sorts labels: whole numbers by value ("7" and "0007" are one label), then other text."""
    stripped = text.strip()
    if re.fullmatch(r"[0-9]+", stripped):
        return (0, int(stripped), "")
    return (1, 0, stripped)


def numbers_of(texts: Iterable[str]) -> dict[str, int]:
    """Text → number from 0, in sorted order."""
    given = set(texts)
    numbers = {key: number for number, key in enumerate(sorted({label_key(text) for text in given}))}
    return {text: numbers[label_key(text)] for text in given}
