"""A suite document from parts: what it extends, its presets of attacks, its full size, and data sets put in its place.

Everything here turns plain YAML values into plain YAML values; `suite.parse` checks what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reid_attack_bench.data import catalogue as datasets
from reid_attack_bench.data.synthetic import DOMAINS
from reid_attack_bench.errors import BenchError, nearest

Document = dict[str, Any]

SECTIONS = ("datasets", "victims", "attacks")
"""Where a list of names picks entries of the suite that is extended."""

NOT_INHERITED = ("name", "description", "findings", "relations")
"""What a suite says of itself and of nothing that extends it."""


def compose(
    document: Mapping[str, Any], read: Callable[[str], Document], *, full: bool = False, data: Sequence[str] = ()
) -> Document:
    """The document that is left when nothing is left to look up.

    - `extends: SUITE` takes every setting of another suite that this one does not give. A section given as a mapping
      replaces the other's; as a list of names it picks from it (victims are trained on what is picked).
    - `presets: {NAME: attack}` are attacks to start from: an attack with `like: NAME` has the preset's settings under
      its own, and both their options. Presets are inherited and merged one by one.
    - `full: {...}` are the settings of the suite at the paper's size, put over the others where `full` is asked for;
      its presets are merged.
    - `data`: these data sets in place of the suite's, in its order; victims are trained on them instead.

    Args:
        read: suite name or file → its document.

    Raises:
        BenchError: an unknown name, a circle, or a suite that has no full size.
    """
    merged = _extended(dict(document), read, ())
    sized = _section(merged, "full")
    if full and not sized:
        raise BenchError("it has no full size: give its settings under full, or leave out --full")
    if full:
        merged = _over(merged, sized, "full")
    presets = _section(merged, "presets")
    attacks = merged.get("attacks")
    if isinstance(attacks, Mapping):
        merged["attacks"] = {label: _like(str(label), entry, presets) for label, entry in attacks.items()}
    for done in ("extends", "presets", "full"):
        merged.pop(done, None)
    return _with_data(merged, data) if data else merged


def _extended(document: Document, read: Callable[[str], Document], seen: tuple[str, ...]) -> Document:
    name = document.get("extends")
    if name is None:
        return document
    if not isinstance(name, str):
        raise BenchError(f"extends must name one suite, not {name!r}")
    if name in seen:
        raise BenchError(f"extends goes in a circle: {' → '.join((*seen, name))}")
    base = _extended(read(name), read, (*seen, name))
    base = {key: value for key, value in base.items() if key not in NOT_INHERITED}
    return _over(base, document, f"the suite that extends {name}")


def _over(base: Document, upper: Mapping[str, Any], where: str) -> Document:
    """`upper` over `base`: presets and the full size merged, lists of names picked, all else replaced."""
    merged = {**base, **upper}
    for section in SECTIONS:
        if isinstance(upper.get(section), list):
            merged[section] = _picked(upper[section], _section(base, section), f"{where}, {section}")
    if isinstance(upper.get("datasets"), list) and "victims" in merged:
        dropped = set(_section(base, "datasets")) - set(merged["datasets"])
        merged["victims"] = {
            label: _retrained(entry, [home for home in _homes(entry) if home not in dropped])
            for label, entry in _section(merged, "victims").items()
        }
    below, above = _section(base, "presets"), _section(upper, "presets")
    if below or above:
        merged["presets"] = {**below, **{name: _entry_over(below.get(name), entry) for name, entry in above.items()}}
    if "full" in base and "full" in upper:
        merged["full"] = _over(_section(base, "full"), _section(upper, "full"), f"{where}, full")
    return merged


def _picked(names: list[Any], known: Mapping[str, Any], where: str) -> Document:
    for name in names:
        if name not in known:
            raise BenchError(f"{where}: no '{name}' to pick: {nearest(str(name), map(str, known))}")
    return {str(name): known[name] for name in names}


def _entry_over(below: Any, above: Any) -> Any:
    """One attack over another: settings replaced, options merged."""
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    options = {**(below.get("options") or {}), **(above.get("options") or {})}
    return {**below, **above, **({"options": options} if options else {})}


def _like(label: str, entry: Any, presets: Mapping[str, Any]) -> Any:
    if not isinstance(entry, Mapping) or "like" not in entry:
        return entry
    name = str(entry["like"])
    if name not in presets:
        raise BenchError(f"attacks.{label}.like: no preset is called '{name}': {nearest(name, presets)}")
    return _entry_over({"use": name, **presets[name]}, {k: v for k, v in entry.items() if k != "like"})


def _homes(victim: Any) -> list[str]:
    """What a victim entry is to be trained on; nothing for one that comes trained."""
    trained = (victim.get("train_on") if isinstance(victim, Mapping) else None) or []
    return [trained] if isinstance(trained, str) else list(trained)


def _retrained(victim: Any, homes: list[str]) -> Any:
    return {**victim, "train_on": homes} if _homes(victim) else victim


def _section(document: Mapping[str, Any], name: str) -> Document:
    section = document.get(name) or {}
    if not isinstance(section, Mapping):
        raise BenchError(f"{name} must be a mapping of names to values, not {type(section).__name__}")
    return dict(section)


def _with_data(document: Document, names: Sequence[str]) -> Document:
    """The suite on other data: the first of `names` in place of its first data set, and so on; the rest are dropped.

    Names beyond the suite's own are added, and train what was trained on every one of them. A synthetic domain keeps
    the counts of the one whose place it takes.
    """
    known = datasets.names()
    for name in names:
        if name not in known:
            raise BenchError(f"--data {name}: no such data set: {nearest(name, known)}")
    if len(set(names)) < len(names):
        raise BenchError(f"--data names a data set twice: {','.join(names)}")
    old = _section(document, "datasets")
    places = dict(zip(old, names, strict=False))
    chosen: Document = {}
    for index, name in enumerate(names):
        before = list(old)[min(index, len(old) - 1)] if old else ""
        alike = name in DOMAINS and bool(before) and before in DOMAINS
        chosen[name] = old[name] if name in old else (old[before] if alike else {})
    victims: Document = {}
    for label, entry in _section(document, "victims").items():
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
