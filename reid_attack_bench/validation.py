"""Checks of what people write: YAML files, options of plug-ins, and records that are read back.

Values are checked as JSON in strict mode: a list becomes a tuple where one is declared, a whole number passes as a
number, and nothing else is converted.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PydanticInvalidForJsonSchema,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from reid_attack_bench.errors import BenchError
from reid_attack_bench.mistakes import explained, shown

T = TypeVar("T")

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""Types of settings that plug-ins share; see `check_settings`."""


class Document(BaseModel):
    """Base of what is written by hand: unknown names and wrong types are mistakes; frozen once read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class OneOrMany:
    """Marks a list for which a single value may stand: `Annotated[list[int], OneOrMany()]` reads 3 as [3]."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            lambda value: value if isinstance(value, list) else [value], handler(source)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        listed = handler(schema)
        return {"anyOf": [listed.get("items", {}), listed]}


@dataclass(frozen=True)
class OneOf:
    """Marks text that is one of `names`, where they are known only at run time."""

    names: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.literal_schema(list(self.names))


def mistake(words: str) -> PydanticCustomError:
    """For validators to raise: `words` follow the place in the message ("must be even, not 3")."""
    return PydanticCustomError("mistake", "{words}", {"words": words})


def checked(kind: type[T], value: object, where: str, noun: str = "setting") -> T:
    """`value` as a `kind`: a Document, a dataclass, or any type that pydantic knows.

    Args:
        where: name of the whole, for mistakes that concern no part of it.
        noun: what its parts are called.

    Raises:
        BenchError: the first mistake; unknown names come first.
    """
    try:
        text = json.dumps(value, default=str)
    except ValueError:
        raise BenchError(f"{where} contains itself: remove the YAML alias that leads back to it") from None
    except TypeError:
        raise BenchError(f"{where} has a name that is not text, such as a date: put it in quotes") from None
    adapter: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]  # a type can be hashed
    try:
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        raise BenchError(explained(error, adapter.json_schema(), json.loads(text), where, noun)) from None


def checked_options(factory: Callable[..., Any], options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`options` as the annotations of the factory's parameters have them.

    Left as they are: options without an annotation that pydantic knows, defaults, and objects that are no plain values.

    Args:
        name: of the plug-in, for messages.

    Raises:
        BenchError: an option of the wrong type, or outside its bounds (`Annotated[int, pydantic.Field(ge=1)]`).
    """
    adapters = _parameter_adapters(factory)
    defaults = {each.name: each.default for each in inspect.signature(factory).parameters.values()}
    done = dict(options)
    for option, value in options.items():
        if option not in adapters or value is defaults.get(option, inspect.Parameter.empty):
            continue
        try:
            text = json.dumps(value)
        except (TypeError, ValueError):
            continue
        try:
            done[option] = _as_given(value, adapters[option].validate_json(text, strict=True))
        except ValidationError as error:
            try:
                words = explained(error, adapters[option].json_schema(), json.loads(text), option)
            except PydanticInvalidForJsonSchema:
                continue
            raise BenchError(f"{name}: {words}") from None
    return done


def _as_given(given: Any, made: Any) -> Any:
    """`made`, with numbers as they were given: keys of steps tell 1 from 1.0."""
    if isinstance(made, tuple) and isinstance(given, (list, tuple)) and len(made) == len(given):
        return tuple(_as_given(*pair) for pair in zip(given, made, strict=True))
    return given if made == given else made


def check_settings(settings: Any, name: str) -> None:
    """For `__post_init__` of a frozen dataclass of settings: every field as its annotation has it; lists become tuples.

    Raises:
        BenchError: a field of the wrong type or outside its bounds.
    """
    given = {field.name: getattr(settings, field.name) for field in fields(settings) if field.init}
    for field, value in checked_options(type(settings), given, name).items():
        if value is not given[field]:
            object.__setattr__(settings, field, value)


def json_schema(kind: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a document, for editors and for others to check against."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_pruned(kind.model_json_schema()),
    }


def _pruned(schema: Any) -> Any:
    """A schema without class names and without what is the default, so that versions of pydantic write the same."""
    if isinstance(schema, list):
        return [_pruned(each) for each in schema]
    if isinstance(schema, float) and schema.is_integer():
        return int(schema)
    if not isinstance(schema, dict):
        return schema
    said = {name: value for name, value in schema.items() if not (name == "title" and isinstance(value, str))}
    for name, default in (("additionalProperties", True), ("default", None)):
        if said.get(name, default) is default:
            said.pop(name, None)
    return {name: _pruned(value) for name, value in said.items()}


def schema_text(schema: Mapping[str, Any]) -> str:
    """A JSON schema as it is published."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def read_yaml(path: Path, what: str) -> Any:
    """The content of a YAML file.

    Args:
        what: of what kind the file is, for messages.

    Raises:
        BenchError: no such file, no YAML, or a key that stands twice in one mapping.
    """
    try:
        return parse_yaml(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise BenchError(f"{what} {path} does not exist") from None
    except OSError as error:
        raise BenchError(f"{what} {path} cannot be read: {error.strerror or error}") from error


def parse_yaml(text: bytes, where: str) -> Any:
    """The content of YAML in UTF-8; `where` names it in messages.

    Raises:
        BenchError: no YAML, a key that stands twice in one mapping, or aliases that expand to too much.
    """
    try:
        content = yaml.load(text.decode("utf-8-sig"), _UniqueKeys)
        size = _expanded(content, {})
    except _DuplicateKeyError as error:
        raise BenchError(f"{where}, {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        words = " ".join(str(error).split())
        raise BenchError(f"{where} is not valid YAML: {words[:500]}") from error
    if size > MOST_VALUES:
        raise BenchError(f"{where}: its YAML aliases expand to more than {MOST_VALUES:,} values: write them out")
    return content


MOST_VALUES = 200_000
"""Values in a YAML file, with aliases written out."""


def _expanded(value: Any, known: dict[int, int]) -> int:
    """Number of values in `value` with aliases written out; of one that contains itself as if it did not."""
    if not isinstance(value, (dict, list, set, tuple)):
        return 1
    if id(value) not in known:
        known[id(value)] = 1
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_expanded(part, known) for part in parts)
    return known[id(value)]


def parse_json(text: str | bytes, where: str) -> Any:
    """The content of JSON as the standard has it; `where` names it in messages.

    Raises:
        BenchError: no JSON, a key that stands twice in one object, NaN or infinity, or nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{where} is not valid JSON ({' '.join(str(error).split())[:500]})") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"'{twice[:60]}' is given twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


class _DuplicateKeyError(Exception):
    pass


class _UniqueKeys(yaml.SafeLoader):
    """Refuses what plain YAML leaves to the last one: a key that stands twice in a mapping."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[Any, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if (key.tag, key.value) in first:
                    before = first[key.tag, key.value]
                    raise _DuplicateKeyError(
                        f"line {line}: '{key.value}' is given twice, first in line {before}: rename or remove one"
                    )
                first[key.tag, key.value] = line
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge what `<<` names; PyYAML 6.0.4 gives a mapping that is merged further its first values, not its own."""
        super().flatten_mapping(node)
        last = {
            (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key): (key, value)
            for key, value in node.value
        }
        node.value = list(last.values())


@functools.lru_cache(maxsize=64)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _parameter_adapters(factory: Callable[..., Any]) -> dict[str, TypeAdapter[Any]]:
    """An adapter per parameter whose annotation can be read and is known to pydantic."""
    try:
        return _cached_adapters(factory)
    except TypeError:  # a callable object that cannot be hashed
        return _cached_adapters.__wrapped__(factory)


@functools.lru_cache(maxsize=256)
def _cached_adapters(factory: Callable[..., Any]) -> dict[str, TypeAdapter[Any]]:
    adapters = {}
    for name, (annotation, names) in _annotations(factory).items():
        try:
            resolved = eval(annotation, names) if isinstance(annotation, str) else annotation
            if not dataclasses.is_dataclass(resolved):  # it may be for the plug-in to make one
                adapter: TypeAdapter[Any] = TypeAdapter(resolved)
                if adapter.core_schema["type"] not in ("any", "generator"):
                    adapters[name] = adapter
        except Exception:  # a plug-in may annotate as it likes
            continue
    return adapters


def _annotations(factory: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Annotations of parameters, each with the names that it may use."""
    found: dict[str, tuple[Any, dict[str, Any]]] = {}
    generated = "__dataclass_fields__" in vars(factory) if inspect.isclass(factory) else False
    for owner in reversed(factory.__mro__) if generated else ():
        names = {**vars(sys.modules.get(owner.__module__, sys)), **vars(owner)}
        found |= {name: (annotation, names) for name, annotation in _own_annotations(owner).items()}
    function = factory.__init__ if inspect.isclass(factory) else factory
    if not generated:
        function = inspect.unwrap(function if inspect.isroutine(function) else type(function).__call__)
        names = dict(getattr(function, "__globals__", {}))
        found |= {name: (annotation, names) for name, annotation in _own_annotations(function).items()}
    return found


def _own_annotations(thing: Any) -> dict[str, Any]:
    try:
        return inspect.get_annotations(thing)
    except Exception:  # evaluated on access since Python 3.14
        return {}


def pattern(expression: str, words: str) -> Callable[[str], str]:
    """A validator of text: all of it matches the expression, else it "must be `words`"."""

    def check(text: str) -> str:
        if not re.fullmatch(expression, text):
            raise mistake(f"must be {words}, not {shown(text)}")
        return text

    return check
