"""Compose a suite document from the suite it extends, its attack presets, its full size and other data sets.

Input and output are plain values of validated documents; `parse` validates the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reid_attack_bench.data import catalogue
from reid_attack_bench.data.synthetic import DOMAINS
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.suites.document import SECTIONS

Fields = dict[str, Any]

NOT_INHERITED = ("name", "description", "findings", "relations", "protocol")
"""Fields that are not inherited."""


def compose(
    document: Mapping[str, Any], read: Callable[[str], Fields], *, full: bool = False, data: Sequence[str] = ()
) -> Fields:
    """Resolve `extends`, `presets`, `full` and `data` of a document.

    - `extends: SUITE` inherits every setting of another suite that this one does not set. A section (data sets,
      victims, attacks) given as a mapping is merged entry by entry: settings are replaced, options merged; an entry
      with `use` or `like` replaces the inherited one. A section given as a list picks entries by name (victims are
      trained on the picked data sets). A section listed under `replace` replaces the inherited one.
    - `presets: {NAME: attack}`: an attack with `like: NAME` inherits the settings of the preset; options are merged.
      Presets are inherited and merged like sections.
    - `full: {...}`: settings at full size, which override the others by the same rules if `full` is True.
    - `data`: data sets that replace those of the suite, in its order; victims are trained on them instead.

    Args:
        read: suite name or file → its document.

    Raises:
        BenchError: an unknown name, a cycle, or a suite without a full size.
    """
    merged = _extended(dict(document), read, ())
    sized = merged.pop("full", {})
    if full and not sized:
        raise BenchError("it has no full size: add one under full, or leave out --full")
    if full:
        merged = _over(merged, sized, "full")
    presets = merged.pop("presets", {})
    if isinstance(merged.get("attacks"), dict):
        merged["attacks"] = {label: _like(label, entry, presets) for label, entry in merged["attacks"].items()}
    merged.pop("replace", None)
    for section in SECTIONS:
        if isinstance(merged.get(section), list):
            raise BenchError(f"{section} is a list of names to pick from an extended suite, but extends is missing")
    return _with_data(merged, data) if data else merged


def _extended(document: Fields, read: Callable[[str], Fields], seen: tuple[str, ...]) -> Fields:
    """`document` merged with the suites it extends."""
    name = document.pop("extends", "")
    if not name:
        if "replace" in document:
            raise BenchError("replace: this suite extends no other: remove it")
        return document
    if name in seen:
        raise BenchError(f"extends is circular: {' → '.join((*seen, name))}")
    base = _extended(read(name), read, (*seen, name))
    base = {key: value for key, value in base.items() if key not in NOT_INHERITED}
    merged = _over(base, document, f"the suite that extends {name}")
    merged.pop("replace", None)
    return merged


def _over(base: Fields, upper: Mapping[str, Any], where: str) -> Fields:
    """`upper` merged into `base`, see `compose`."""
    merged = {**base, **upper}
    for section in upper.get("replace", ()):
        if section not in upper:
            raise BenchError(f"{where}: replace lists {section}, but the suite has no such section: add it")
    for section in SECTIONS:
        if section in upper and section not in upper.get("replace", ()):
            merged[section] = _section_over(base.get(section, {}), upper[section], f"{where}, {section}")
    if isinstance(upper.get("datasets"), list) and isinstance(merged.get("victims"), dict):
        dropped = set(base.get("datasets", {})) - set(merged["datasets"])
        merged["victims"] = {
            label: _retrained(entry, [each for each in _train_on(entry) if each not in dropped])
            for label, entry in merged["victims"].items()
        }
    if "presets" in base and "presets" in upper:
        merged["presets"] = _section_over(base["presets"], upper["presets"], where)
    if "full" in base and "full" in upper:
        merged["full"] = _over(base["full"], upper["full"], f"{where}, full")
        # sections that either replaces or picks are replaced when the full size is applied
        picked = [section for section in SECTIONS if isinstance(upper["full"].get(section), list)]
        merged["full"]["replace"] = [
            section
            for section in SECTIONS
            if section in (*base["full"].get("replace", ()), *upper["full"].get("replace", ()))
            or (section in picked and isinstance(base["full"].get(section), dict))
        ]
    return merged


def _section_over(base: Any, upper: Any, where: str) -> Any:
    if isinstance(base, list):  # from a full size that is not applied yet
        return upper
    if isinstance(upper, list):
        for name in upper:
            if name not in base:
                raise BenchError(f"{where}: no '{name}' to pick: {nearest(name, base)}")
        return {name: base[name] for name in upper}
    return {**base, **{label: _entry_over(base.get(label, {}), entry) for label, entry in upper.items()}}


def _entry_over(below: Fields, above: Fields) -> Fields:
    return above if {"use", "zoo", "like"} & above.keys() else _merged(below, above)


def _merged(below: Fields, above: Fields) -> Fields:
    """Replace settings and merge options."""
    options = {**below.get("options", {}), **above.get("options", {})}
    return {**below, **above, **({"options": options} if options else {})}


def _like(label: str, entry: Fields, presets: Mapping[str, Fields]) -> Fields:
    name = entry.get("like", "")
    if not name:
        return entry
    if name not in presets:
        raise BenchError(f"attacks.{label}.like: unknown preset '{name}': {nearest(name, presets)}")
    return _merged({"use": name, **presets[name]}, {key: value for key, value in entry.items() if key != "like"})


def _train_on(victim: Fields) -> list[str]:
    """Training data sets of a victim; empty for a trained victim."""
    return list(victim.get("train_on", ()))


def _retrained(victim: Fields, train_on: list[str]) -> Fields:
    return {**victim, "train_on": train_on} if _train_on(victim) else victim


def _with_data(document: Fields, names: Sequence[str]) -> Fields:
    """Replace the data sets of the suite by `names`, in order; remaining data sets are dropped.

    Additional names are added, and become training data of the victims that were trained on all data sets. A synthetic
    domain keeps the counts of the one it replaces.
    """
    old = document.get("datasets", {})
    known = [*catalogue.names(), *old]
    for name in names:
        if name not in known:
            raise BenchError(f"--data {name}: no such data set: {nearest(name, known)}")
    if len(set(names)) < len(names):
        raise BenchError(f"--data names a data set twice: {','.join(names)}")
    places = dict(zip(old, names, strict=False))
    chosen: Fields = {}
    for index, name in enumerate(names):
        before = list(old)[min(index, len(old) - 1)] if old else ""
        alike = name in DOMAINS and bool(before) and before in DOMAINS
        chosen[name] = old[name] if name in old else (old[before] if alike else {})
    victims: Fields = {}
    for label, entry in document.get("victims", {}).items():
        if train_on := _train_on(entry):
            moved = [places[data_set] for data_set in train_on if data_set in places]
            if set(train_on) >= set(old):
                moved += list(names[len(old) :])
            if not moved:
                raise BenchError(
                    f"--data {','.join(names)}: victim {label} is trained on {' and '.join(train_on)}, which no "
                    f"data set replaces: give {len(old)} data sets"
                )
            entry = _retrained(entry, moved)
        victims[label] = entry
    return {**document, "datasets": chosen, "victims": victims}
