"""A suite document from parts: the suite it extends, its presets of attacks, its full size, and other data sets.

Checked documents go in as plain values, and one comes out; `parse` checks the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reid_attack_bench.data import catalogue
from reid_attack_bench.data.synthetic import DOMAINS
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.suites.document import SECTIONS

Fields = dict[str, Any]

NOT_INHERITED = ("name", "description", "findings", "relations")
"""Statements of a suite about itself alone."""


def compose(
    document: Mapping[str, Any], read: Callable[[str], Fields], *, full: bool = False, data: Sequence[str] = ()
) -> Fields:
    """The document that is left when nothing is left to look up.

    - `extends: SUITE` takes every setting of another suite that this one does not give. A section (data sets, victims,
      attacks) given as a mapping is merged into the other's, entry by entry: settings are replaced, options merged, and
      an entry with `use` or `like` stands for itself. A section given as a list of names picks from the other's
      (victims are trained on the data sets picked). One that is named under `replace` takes the other's place.
    - `presets: {NAME: attack}` are attacks to start from: an attack with `like: NAME` has the preset's settings under
      its own, and both their options. Presets are inherited and merged as sections are.
    - `full: {...}` are the settings of the suite at its full size, put over the others by the same rules where `full`
      is asked for.
    - `data`: these data sets in place of the suite's, in its order; victims are trained on them instead.

    Args:
        read: suite name or file → its document.

    Raises:
        BenchError: an unknown name, a circle, or a suite that has no full size.
    """
    merged = _extended(dict(document), read, ())
    sized = merged.pop("full", {})
    if full and not sized:
        raise BenchError("it has no full size: give its settings under full, or leave out --full")
    if full:
        merged = _over(merged, sized, "full")
    presets = merged.pop("presets", {})
    if isinstance(merged.get("attacks"), dict):
        merged["attacks"] = {label: _like(label, entry, presets) for label, entry in merged["attacks"].items()}
    merged.pop("replace", None)
    for section in SECTIONS:
        if isinstance(merged.get(section), list):
            raise BenchError(f"{section} is a list of names to pick from the suite that is extended, and there is none")
    return _with_data(merged, data) if data else merged


def _extended(document: Fields, read: Callable[[str], Fields], seen: tuple[str, ...]) -> Fields:
    """`document` over all that it extends."""
    name = document.pop("extends", "")
    if not name:
        if "replace" in document:
            raise BenchError("replace: this suite extends none, so that there is nothing to replace: remove it")
        return document
    if name in seen:
        raise BenchError(f"extends goes in a circle: {' → '.join((*seen, name))}")
    base = _extended(read(name), read, (*seen, name))
    base = {key: value for key, value in base.items() if key not in NOT_INHERITED}
    merged = _over(base, document, f"the suite that extends {name}")
    merged.pop("replace", None)
    return merged


def _over(base: Fields, upper: Mapping[str, Any], where: str) -> Fields:
    """`upper` over `base`, see `compose`."""
    merged = {**base, **upper}
    for section in upper.get("replace", ()):
        if section not in upper:
            raise BenchError(f"{where}: replace names {section}, and gives none: add what takes their place")
    for section in SECTIONS:
        if section in upper and section not in upper.get("replace", ()):
            merged[section] = _section_over(base.get(section, {}), upper[section], f"{where}, {section}")
    if isinstance(upper.get("datasets"), list) and isinstance(merged.get("victims"), dict):
        dropped = set(base.get("datasets", {})) - set(merged["datasets"])
        merged["victims"] = {
            label: _retrained(entry, [home for home in _homes(entry) if home not in dropped])
            for label, entry in merged["victims"].items()
        }
    if "presets" in base and "presets" in upper:
        merged["presets"] = _section_over(base["presets"], upper["presets"], where)
    if "full" in base and "full" in upper:
        merged["full"] = _over(base["full"], upper["full"], f"{where}, full")
        # what either replaces, or picks, is replaced where the full size is put over the suite
        picked = [section for section in SECTIONS if isinstance(upper["full"].get(section), list)]
        merged["full"]["replace"] = [
            section
            for section in SECTIONS
            if section in (*base["full"].get("replace", ()), *upper["full"].get("replace", ()))
            or (section in picked and isinstance(base["full"].get(section), dict))
        ]
    return merged


def _section_over(base: Any, upper: Any, where: str) -> Any:
    if isinstance(base, list):  # of a full size that is yet to be put over its suite
        return upper
    if isinstance(upper, list):
        for name in upper:
            if name not in base:
                raise BenchError(f"{where}: no '{name}' to pick: {nearest(name, base)}")
        return {name: base[name] for name in upper}
    return {**base, **{label: _entry_over(base.get(label, {}), entry) for label, entry in upper.items()}}


def _entry_over(below: Fields, above: Fields) -> Fields:
    return above if "use" in above or "like" in above else _merged(below, above)


def _merged(below: Fields, above: Fields) -> Fields:
    """Settings replaced, options merged."""
    options = {**below.get("options", {}), **above.get("options", {})}
    return {**below, **above, **({"options": options} if options else {})}


def _like(label: str, entry: Fields, presets: Mapping[str, Fields]) -> Fields:
    name = entry.get("like", "")
    if not name:
        return entry
    if name not in presets:
        raise BenchError(f"attacks.{label}.like: no preset is called '{name}': {nearest(name, presets)}")
    return _merged({"use": name, **presets[name]}, {key: value for key, value in entry.items() if key != "like"})


def _homes(victim: Fields) -> list[str]:
    """What a victim is to be trained on; nothing for one that comes trained."""
    return list(victim.get("train_on", ()))


def _retrained(victim: Fields, homes: list[str]) -> Fields:
    return {**victim, "train_on": homes} if _homes(victim) else victim


def _with_data(document: Fields, names: Sequence[str]) -> Fields:
    """The suite on other data: the first of `names` in place of its first data set, and so on; the rest are dropped.

    Names beyond the suite's own are added, and train what was trained on every one of them. A synthetic domain keeps
    the counts of the one whose place it takes.
    """
    known = catalogue.names()
    for name in names:
        if name not in known:
            raise BenchError(f"--data {name}: no such data set: {nearest(name, known)}")
    if len(set(names)) < len(names):
        raise BenchError(f"--data names a data set twice: {','.join(names)}")
    old = document.get("datasets", {})
    places = dict(zip(old, names, strict=False))
    chosen: Fields = {}
    for index, name in enumerate(names):
        before = list(old)[min(index, len(old) - 1)] if old else ""
        alike = name in DOMAINS and bool(before) and before in DOMAINS
        chosen[name] = old[name] if name in old else (old[before] if alike else {})
    victims: Fields = {}
    for label, entry in document.get("victims", {}).items():
        if homes := _homes(entry):
            moved = [places[home] for home in homes if home in places]
            if set(homes) >= set(old):
                moved += list(names[len(old) :])
            if not moved:
                raise BenchError(
                    f"--data {','.join(names)}: victim {label} is trained on {' and '.join(homes)}, which nothing "
                    f"takes the place of: name {len(old)} data sets"
                )
            entry = _retrained(entry, moved)
        victims[label] = entry
    return {**document, "datasets": chosen, "victims": victims}
