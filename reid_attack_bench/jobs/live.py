"""Victims that are objects in memory, and their identity in the store."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from reid_attack_bench.contracts import ModuleVictim, Victim
from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import digest_of
from reid_attack_bench.registry import Plugin

_DECLARED = tuple(name for name in Victim.__annotations__ if name not in ("name", "version", "citation"))

_ADDED_LATER = ("own_comparison", "differentiable_comparison", "reranks", "list_length", "uses_cameras")
"""Declarations that are left out of the digest where they are a victim's default, like contracts.ADDED_LATER."""

_LIBRARIES = ("torch", "torchvision", "torchreid", "timm", "builtins")
"""Packages whose classes are not digested, like contracts and this file, because users do not edit them."""


def as_victim(victim: nn.Module, settings: dict[str, Any]) -> Victim:
    """`victim` itself if it is a Victim, else a ModuleVictim with `settings`; settings that are None are left out.

    Raises:
        BenchError: settings given for a Victim, which declares its own.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if not isinstance(victim, Victim):
        return ModuleVictim(victim, **given)
    if given:
        raise BenchError(
            f"{type(victim).__name__} is a Victim and declares {', '.join(given)} itself: set them as its attributes"
        )
    return victim


def live_plugin(victim: Victim) -> Plugin:
    """The plug-in of a victim in memory, for `plan.planner.make_plan`.

    Its key is the name of its class (the wrapped module's class for a ModuleVictim). Its code is a digest of the source
    of its classes other than torch's, the plain attributes of its modules, and its declarations; the planner digests
    the weights and the outputs on fixed images, as for every ready victim.
    """
    shown = victim.module if isinstance(victim, ModuleVictim) else victim
    name = type(shown).__name__
    declared = {
        each: repr(value)
        for each, value in ((each, getattr(victim, each)) for each in _DECLARED)
        if each not in _ADDED_LATER or value != getattr(Victim, each)
    }
    structure = re.sub(r" at 0x[0-9a-f]+", "", repr(shown))  # addresses of functions differ between processes
    code = digest_of([declared, structure, _attributes(victim), _sources(victim)])[:16]
    return Plugin("victim", name, victim, code, "memory")


def _attributes(victim: nn.Module) -> dict[str, str]:
    """Attributes with plain values, of every module in `victim`."""
    found = {}
    for path, module in victim.named_modules():
        for name, value in vars(module).items():
            if not name.startswith("_") and name != "training" and _is_plain(value):
                found[f"{path}.{name}"] = repr(value)
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(each) for each in value)
    return value is None or isinstance(value, (bool, int, float, str, torch.dtype, torch.Size))


def _sources(victim: nn.Module) -> list[tuple[str, str, str]]:
    """(class, name, source) of the methods of all classes in `victim`, base classes included, libraries excluded.

    Methods without source are represented by their bytecode; class attributes are listed if they are plain values.
    """
    found = []
    for each in dict.fromkeys(base for module in victim.modules() for base in type(module).__mro__):
        ours = each.__module__ == __name__ or each.__module__.startswith(Victim.__module__.rpartition(".")[0])
        if ours or each.__module__.split(".")[0] in _LIBRARIES:
            continue
        for name, member in sorted(vars(each).items()):
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(function, types.FunctionType):
                found.append((each.__qualname__, name, _source(function)))
            elif not name.startswith("__") and _is_plain(member):
                found.append((each.__qualname__, name, repr(member)))
    return found


def _source(function: types.FunctionType) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # defined in an interactive session
        return repr(_bytecode(function.__code__))


def _bytecode(code: types.CodeType) -> tuple[Any, ...]:
    constants = [_bytecode(each) if isinstance(each, types.CodeType) else each for each in code.co_consts]
    return code.co_code.hex(), code.co_names, constants


@contextmanager
def left_as_it_was(module: nn.Module) -> Iterator[None]:
    """Restore the training mode, requires_grad and device of a module on exit."""
    modes = {each: each.training for each in module.modules()}
    frozen = {each: each.requires_grad for each in module.parameters()}
    tensors = [*module.parameters(), *module.buffers()]
    device = tensors[0].device if tensors else None
    try:
        yield
    finally:
        if device is not None:
            module.to(device)
        for each, mode in modes.items():
            each.training = mode
        for parameter, grad in frozen.items():
            parameter.requires_grad_(grad)
