"""Protocols: fixed, versioned, parameter-free sets of attacks, by which victims of different runs can be compared.

A file of this folder never changes: a better set is a new file with the next number. `tests/test_keys.py` pins them.
"""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.suites.document import AttackDocument, ProtocolDocument
from reid_attack_bench.validation import checked, read_yaml


def shipped() -> dict[str, Path]:
    """Every protocol: name → file."""
    folder = Path(str(importlib.resources.files("reid_attack_bench.suites.protocols")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read(name: str) -> ProtocolDocument:
    """The protocol `name`.

    Raises:
        BenchError: no such protocol; the nearest is named.
    """
    known = shipped()
    if name not in known:
        raise BenchError(f"no protocol is called '{name}': {nearest(name, known)}")
    document = read_yaml(known[name], "protocol file")
    return checked(ProtocolDocument, document, f"protocol {name}")


def attacks(name: str) -> dict[str, AttackDocument]:
    """Attacks of the protocol `name` by label."""
    return read(name).attacks
