"""Find attacks, victims and data sets by entry point or as FILE.py:NAME; those of users are treated as ours.

NAME is a class, a function, a victim instance, or a plain nn.Module, which becomes a contracts.ModuleVictim.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from reid_attack_bench import plugin_file
from reid_attack_bench.contracts import (
    Attack,
    DataSet,
    Defence,
    LearnedAttack,
    LearnedDefence,
    ModuleVictim,
    Recipe,
    Victim,
)
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.files import expanded
from reid_attack_bench.validation import checked_options

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

GROUPS = {
    "attack": "reid_attack_bench.attacks",
    "victim": "reid_attack_bench.victims",
    "data set": "reid_attack_bench.datasets",
}


@dataclass(frozen=True)
class Plugin:
    """An attack, victim or data set class (or function, or victim instance) and the identity of its code.

    Attributes:
        kind: "attack", "victim" or "data set".
        key: registered name, or FILE.py:NAME.
        factory: called with the options of the suite as keyword arguments; or an instance.
        code: "v1" for a registered class that declares `version = 1`, else a digest of its source file, see
            `plugin_file.code_of`. Together with `key` it identifies the plug-in in the keys of steps, independent of
            the path of its module.
        origin: description of where it was found, for messages.
        module: of a FILE.py.
    """

    kind: str
    key: str
    factory: Any
    code: str
    origin: str
    module: ModuleType | None = None

    @property
    def short_name(self) -> str:
        return re.sub(r"[^A-Za-z0-9_.+-]", "-", self.key.rpartition(":")[2])

    def makes(self, base: type) -> bool:
        """Whether the factory is a class, or an instance of a class, under `base`; False for a function."""
        made = self.factory if inspect.isclass(self.factory) else type(self.factory)
        return issubclass(made, base)

    def build(self, options: Mapping[str, Any]) -> Any:
        """Call the factory with `options`, checked against the annotations of its parameters.

        A plain module is wrapped as a ModuleVictim, with its options; any other instance is returned as it is and takes
        none.

        Raises:
            BenchError: an unknown or missing option, or one that its annotation rules out; or the result does not
                inherit the base class of its kind, or the factory calls sys.exit.
        """
        if self.module is None:
            return _checked(self, self._made(options))
        with plugin_file.surroundings(self.module, self.kind):
            return _checked(self, self._made(options))

    def _made(self, options: Mapping[str, Any]) -> Any:
        if self.kind == "victim" and _is_plain_module(self.factory):
            return dataclasses.replace(self, factory=ModuleVictim)._made({**options, "module": self.factory})
        if isinstance(self.factory, nn.Module) or not callable(self.factory):  # a module is callable too
            if options:
                raise BenchError(
                    f"{self.key} is an instance of {type(self.factory).__name__} and takes no options, not "
                    f"{', '.join(options)}: set them in its file"
                )
            return self.factory
        if inspect.isabstract(self.factory):
            lacking = " and ".join(sorted(self.factory.__abstractmethods__))
            raise BenchError(f"{self.kind} {self.key}: class {self.factory.__name__} does not define {lacking}")
        accepted = inspect.signature(self.factory).parameters
        open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values())
        for name in options:
            if name not in accepted and not open_ended:
                raise BenchError(f"{self.key} has no option '{name}': {nearest(name, accepted)}")
        missing = [n for n, p in accepted.items() if n not in options and p.default is p.empty and p.kind in _NAMED]
        if missing:
            raise BenchError(f"{self.key} needs {' and '.join(missing)}: give them as options")
        return self.factory(**checked_options(self.factory, options, self.key))


def available(kind: str) -> dict[str, importlib.metadata.EntryPoint]:
    """Entry points of one kind, a key of GROUPS, by name.

    Raises:
        BenchError: two packages register the same name; names both.
    """
    found: dict[str, importlib.metadata.EntryPoint] = {}
    for entry in importlib.metadata.entry_points(group=GROUPS[kind]):
        other = found.get(entry.name)
        if other is not None and other.value != entry.value:
            raise BenchError(
                f"two {kind}s are registered as '{entry.name}': {_describe(other)} and {_describe(entry)}; "
                "uninstall or rename one"
            )
        found[entry.name] = entry
    return dict(sorted(found.items()))


def find(kind: str, key: str) -> Plugin:
    """The plug-in with the given `key`: FILE.py:NAME, or the name of an entry point.

    Raises:
        BenchError: unknown name (names the nearest one), missing file, or the code does not import.
    """
    path, separator, name = key.rpartition(":")
    if separator and path.endswith(".py"):
        return _from_file(kind, expanded(path), name)
    if key.endswith(".py"):
        raise BenchError(f"'{key}' is only a file name: write FILE.py:NAME, where NAME is the class of the {kind}")
    entries = available(kind)
    if key not in entries:
        raise BenchError(f"no {kind} is called '{key}': {nearest(key, entries)}")
    entry = entries[key]
    try:
        factory = entry.load()
    except Exception as error:
        raise BenchError(f"{kind} '{key}' ({_describe(entry)}) does not import: {error}") from error
    return Plugin(kind, key, factory, _code(factory, entry.module), _describe(entry))


def configuration(instance: Any) -> dict[str, Any]:
    """Settings of a frozen dataclass by name, without `contracts.ADDED_LATER` at their defaults.

    Of a victim its `key_settings`; {} of anything else.
    """
    if isinstance(instance, Victim):
        return dict(instance.key_settings)
    if not dataclasses.is_dataclass(instance) or isinstance(instance, type):
        return {}
    values = {f: getattr(instance, f.name) for f in dataclasses.fields(instance)}
    return {f.name: v for f, v in values.items() if not (f.metadata.get("added_later") and v == f.default)}


def _checked(plugin: Plugin, made: Any) -> Any:
    """`made`, if it inherits the base class that its kind and its methods ask for.

    Raises:
        BenchError: it does not; the message names the class, the base and the line to write.
    """
    own = type(made)
    methods = set(dir(own))
    base: type
    if plugin.kind == "data set":
        base = DataSet
    elif plugin.kind == "attack":
        base = LearnedAttack if "fit" in methods else Attack
    elif isinstance(made, Victim) or not methods & {"fit", "defend"}:
        base = Victim
    elif "defend" in methods:
        base = LearnedDefence if "fit" in methods else Defence
    else:
        base = Recipe
    if not isinstance(made, base):
        instead = ", or name an instance of it, a model with its weights" if _is_plain_module(made) else ""
        raise BenchError(
            f"{plugin.kind} {plugin.key}: {own.__name__} does not inherit reid_attack_bench.contracts.{base.__name__}: "
            f"import it and write class {own.__name__}({base.__name__}){instead}"
        )
    return made


def _is_plain_module(thing: Any) -> bool:
    return isinstance(thing, nn.Module) and not hasattr(thing, "embed")


def _describe(entry: importlib.metadata.EntryPoint) -> str:
    package = f" from {entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""
    return f"{entry.value}{package}"


def _from_file(kind: str, path: Path, name: str) -> Plugin:
    if not path.is_file():
        raise BenchError(f"{kind} file {path} does not exist")
    module, code = plugin_file.load(path, kind)
    if not hasattr(module, name):
        own = [
            own_name
            for own_name, value in vars(module).items()
            if isinstance(value, nn.Module) or (inspect.isclass(value) and value.__module__ == module.__name__)
        ]
        raise BenchError(f"{path} has no '{name}': {nearest(name, own)}")
    return Plugin(kind, f"{path.name}:{name}", getattr(module, name), code, str(path), module)


def _code(factory: Any, module: str) -> str:
    # only its own version: a subclass changes independently
    version = getattr(factory, "__dict__", {}).get("version")
    if isinstance(version, int):
        return f"v{version}"
    try:
        path = inspect.getfile(factory)
    except TypeError:  # an instance: use the module that defines it
        path = getattr(sys.modules[module], "__file__", None) or ""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    except OSError:
        return "unknown"
