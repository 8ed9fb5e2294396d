"""Checked fields of a YAML document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.suites.suite import PRECISIONS


def section_of(top: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = mapping_of(top.get(name) or {}, name)
    if not section:
        raise BenchError(f"{name} is missing or empty: a suite needs at least one entry there")
    return section


def list_of(entry: Mapping[str, Any], name: str) -> list[Any]:
    given = entry.get(name) or []
    if not isinstance(given, list):
        raise BenchError(f"{name} must be a list, not {type(given).__name__}")
    return given


def mapping_of(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise BenchError(f"{where} must be a mapping of names to values, not {type(value).__name__}")
    return {str(k): v for k, v in value.items()}


def check_known(entry: Mapping[str, Any], allowed: tuple[str, ...], where: str) -> None:
    for name in entry:
        if name not in allowed:
            raise BenchError(f"{where} has no setting '{name}': {nearest(name, allowed)}")


def check_label(label: str, where: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", label):
        raise BenchError(f"{where}: a label has letters, digits and _ . + - only")


def whole(value: Any, where: str, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BenchError(f"{where} must be a whole number of at least {least}, not {value!r}")
    return value


def precision_of(value: Any) -> str:
    if value not in PRECISIONS:
        raise BenchError(f"precision must be one of {', '.join(PRECISIONS)}, not {value!r}")
    return str(value)


def true_or_false(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise BenchError(f"{where} must be true or false, not {value!r}")
    return value


def size_of(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise BenchError(f"image_size must be [height, width] in pixels, not {value!r}")
    return whole(value[0], "image_size", 16), whole(value[1], "image_size", 16)
