"""What pydantic finds wrong, in one line of plain words: the place, what is expected there, and what was given."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from reid_attack_bench.errors import nearest

Place = tuple[str | int, ...]
"""Keys and indices that lead from a document to one of its values."""

Schema = Mapping[str, Any]

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_MANY = 8
"""Names beyond which a message lists no choices where it can name the nearest."""


def explained(error: ValidationError, schema: Schema, value: Any, where: str, noun: str = "setting") -> str:
    """One line for the first mistake: its place, what is expected there, what was given. Unknown names come first.

    Args:
        schema: JSON schema that the value breaks; its titles and descriptions make the words.
        value: what was checked, as JSON has it.
        where: name of the whole, for mistakes that concern no part of it.
        noun: what the parts of a mapping are called.
    """
    found = error.errors(include_url=False, include_context=True)
    found.sort(key=lambda each: each["type"] not in _UNKNOWN)
    places = [_place(each["loc"], each["type"], value) for each in found]
    # a union reports every branch: the one that got furthest is the one that was meant
    first = places[0]
    index = max((i for i, p in enumerate(places) if p[: len(first)] == first), key=lambda i: (len(places[i]), -i))
    wrong, place = found[index], places[index]
    here = _written(place, where)
    if wrong["type"] in _UNKNOWN:
        known = {name for node in _nodes(schema, place[:-1], schema) for name in node.get("properties", {})}
        return f"{_written(place[:-1], where)} has no {noun} '{place[-1]}': {nearest(str(place[-1]), known)}"
    if wrong["type"] == "mistake":
        return f"{here} {wrong['msg']}"
    nodes = list(_nodes(schema, place, schema))
    about = next((f" ({node['description'].partition(chr(10))[0]})" for node in nodes if "description" in node), "")
    if wrong["type"] == "missing" and isinstance(wrong["loc"][-1], str):
        return f"{here} is missing{about}"
    given = wrong["input"] if wrong["type"] != "missing" else _value_at(value, place)
    if wrong["type"] == "too_short" and not given:
        return f"{here} is an empty list"
    expected = _expected(nodes)
    if not expected:
        return f"{here}: {wrong['msg'][:1].lower()}{wrong['msg'][1:]}"
    choices = [str(name) for node in nodes for name in node.get("enum", ())]
    close = difflib.get_close_matches(str(given), choices, n=1, cutoff=0.5)
    if close and len(choices) > _MANY:
        return f"{here} must be a known name, not {shown(given)}: did you mean '{close[0]}'?"
    advice = f": did you mean '{close[0]}'?" if close else ""
    if expected.startswith("text") and isinstance(given, (bool, int, float)):
        advice = ": put it in quotes"
    elif "number" in expected and isinstance(given, str) and (number := _number(given)) is not None:
        advice = f": write {number}"
    detail = about if expected.startswith(("text", "a list")) else ""
    return f"{here} must be {expected}, not {shown(given)}{detail}{advice}"


def shown(value: Any) -> str:
    """A value as a YAML file would have it, cut where it is long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _place(loc: tuple[str | int, ...], kind: str, value: Any) -> Place:
    """`loc` without pydantic's names of branches and checks: only what leads through `value`."""
    place: list[str | int] = []
    for index, part in enumerate(loc):
        named = isinstance(value, Mapping) and isinstance(part, str) and part in value
        if named or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            place.append(part)
            value = value[part]
        elif kind == "missing" and index == len(loc) - 1 and isinstance(part, str):
            place.append(part)
    return tuple(place)


def _value_at(value: Any, place: Place) -> Any:
    for part in place:
        value = value[part]
    return value


def _written(place: Place, where: str) -> str:
    if not place:
        return where
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    return f"{where}{text}" if text.startswith("[") else text


def _nodes(schema: Schema, place: Place, root: Schema) -> Iterator[Schema]:
    """Every part of a JSON schema that speaks of the value at `place`."""
    if "$ref" in schema:
        target = root["$defs"][schema["$ref"].rpartition("/")[2]]
        described = {"description": schema["description"]} if "description" in schema else {}
        yield from _nodes({**target, **described}, place, root)
        return
    branches = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if branches:
        described = {"description": schema["description"]} if "description" in schema else {}
        for branch in branches:
            yield from _nodes({**described, **branch}, place, root)
    elif not place:
        yield schema
    elif isinstance(place[0], int):
        listed = schema.get("prefixItems", [])
        below = listed[place[0]] if place[0] < len(listed) else schema.get("items")
        if isinstance(below, Mapping):
            yield from _nodes(below, place[1:], root)
    else:
        others = [schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()]
        below = schema.get("properties", {}).get(place[0]) or next((e for e in others if isinstance(e, Mapping)), None)
        if below is not None:
            yield from _nodes(below, place[1:], root)


def _words(node: Schema) -> str:
    """What a part of a JSON schema asks for, in words; empty for one that has none."""
    if "enum" in node or "const" in node:
        names = node.get("enum", [node.get("const")])
        return f"one of {', '.join(map(str, names))}" if len(names) > 1 else shown(names[0])
    kind = node.get("type")
    if kind in ("integer", "number"):
        return _bounded("whole number" if kind == "integer" else "number", node)
    if kind == "array":
        least, most = node.get("minItems"), node.get("maxItems")
        if least == most:
            return f"a list of {least}" if least else "a list"
        return "a list" + (f" of at least {least}" if least else "") + (f" of at most {most}" if most else "")
    if kind == "string":
        return "text that is not empty" if node.get("minLength") == 1 else "text"
    return {"boolean": "true or false", "object": "a mapping of names to values", "null": "null"}.get(str(kind), "")


def _expected(nodes: Iterable[Schema]) -> str:
    """What is expected where `nodes` speak, in words; null is named only where it is alone."""
    words = list(dict.fromkeys(filter(None, map(_words, nodes))))
    return ", or ".join([each for each in words if each != "null"] or words)


def _number(text: str) -> float | int | None:
    """The number that YAML did not see in text such as 1e-3."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else value


def _bounded(noun: str, node: Schema) -> str:
    least, most = node.get("minimum"), node.get("maximum")
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    if least is not None and most is not None:
        return f"a {noun} from {least:g} to {most:g}"
    if above == 0 and most is None and below is None:
        return f"a positive {noun}"
    bounds = [
        f"{words} {bound:g}"
        for words, bound in (("of at least", least), ("above", above), ("of at most", most), ("below", below))
        if bound is not None
    ]
    return f"a {noun} {' and '.join(bounds)}".rstrip()
