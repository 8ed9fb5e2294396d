"""Condition of a model at one moment: what code that is given the model must leave as it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reid_attack_bench.contracts import Victim

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_DEPTH = 4  # of containers in containers that are looked into
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_MISSING = object()
_HARNESS = tuple(f"reid_attack_bench.{layer}." for layer in ("contracts", "adversary", "steps"))
_OF_TORCH = frozenset(vars(nn.Module()))
_LEFT = frozenset({"training", "_is_full_backward_hook"})  # compared apart; left by a hook that is removed, and no harm

_METHODS = ("forward", "__call__", "_call_impl", "_wrapped_call_impl", "train", "eval")
_ASKED = (*Victim.__annotations__, *(name for name in vars(Victim) if not name.startswith("_")))
"""Names in the class of a module, and in that of a victim, that decide what it answers."""


@dataclass(frozen=True, order=True)
class Change:
    """One thing that changed.

    Attributes:
        kind: "weights", "training mode", "requires_grad", "hooks", "modules", "methods" or "attributes".
        name: the tensor, module, method or attribute.
    """

    kind: str
    name: str


class Condition:
    """Weights, buffers, training modes, hooks, attributes and methods of a model and of all its modules.

    Tensors are kept as copies on their device and compared by their bits. Objects other than tensors, arrays, modules
    and containers are compared by identity.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._modules = [_Module(name, module) for name, module in model.named_modules()]
        classes = {cls for each in self._modules for cls in each.made_by.__mro__ if issubclass(cls, nn.Module)}
        self._methods = {
            (cls, name): vars(cls).get(name, _MISSING)
            for cls in classes
            for name in (_ASKED if issubclass(cls, Victim) else _METHODS)
        }

    def changes(self) -> set[Change]:
        """What has changed since then."""
        found = {Change("methods", f"{cls.__name__}.{name}") for cls, name in self._replaced()}
        return found.union(*(each.changes() for each in self._modules))

    def restore(self) -> None:
        """Make the model what it was."""
        for cls, name in self._replaced():
            method = self._methods[cls, name]
            delattr(cls, name) if method is _MISSING else setattr(cls, name, method)
        with torch.inference_mode(mode=False), torch.no_grad():  # whatever mode was left on
            for each in self._modules:
                each.restore()

    def drop_gradients(self) -> None:
        """Free gradients that were left in tensors of the model."""
        for tensor in (*self._model.parameters(), *self._model.buffers()):
            tensor.grad = None

    def _replaced(self) -> list[tuple[type, str]]:
        return [at for at, method in self._methods.items() if vars(at[0]).get(at[1], _MISSING) is not method]


class _Module:
    def __init__(self, name: str, module: nn.Module) -> None:
        self.name, self.module, self.made_by, self.training = name, module, type(module), module.training
        self._attributes = _Container(_attributes(module))
        # those of TorchScript are no attributes of Python
        self._scripted = _Container(_scripted(module)) if isinstance(module, torch.jit.ScriptModule) else None

    def changes(self) -> Iterator[Change]:
        if type(self.module) is not self.made_by:
            yield Change("modules", self.name)
        if self.module.training != self.training:
            yield Change("training mode", self.name)
        for path in self._attributes.changes(_attributes(self.module)):
            yield self._change(*path)
        if self._scripted is not None:
            yield from (self._change("_buffers", *path) for path in self._scripted.changes(_scripted(self.module)))

    def restore(self) -> None:
        if type(self.module) is not self.made_by:
            self.module.__class__ = self.made_by
        own, before = vars(self.module), self._attributes.restored()
        for name in _attributes(self.module).keys() - before.keys():
            del own[name]
        own.update(before)
        if self._scripted is not None:
            self._scripted.restored()
        if self.module.training != self.training:
            self.module.training = self.training

    def _change(self, attribute: str, *path: str) -> Change:
        inner = ".".join(part for part in (self.name, *path) if part not in ("", _REQUIRES_GRAD))
        if _REQUIRES_GRAD in path:
            return Change("requires_grad", inner)
        if attribute in ("_parameters", "_buffers"):
            return Change("weights", inner)
        if attribute == "_modules":
            return Change("modules", inner)
        if "hook" in attribute:
            return Change("hooks", self.name)
        return Change("attributes", f"{self.name}.{attribute}".removeprefix("."))


_REQUIRES_GRAD = "requires_grad "  # at the end of a path; no name ends with a space


class _Kept(ABC):
    """A value, and what was inside it."""

    @abstractmethod
    def changes(self, now: Any) -> Iterable[tuple[str, ...]]:
        """Paths below this value to what is another in `now`."""

    @abstractmethod
    def restored(self) -> Any:
        """The value, with what was inside it."""


class _Object(_Kept):
    def __init__(self, value: Any) -> None:
        self.value = value

    def changes(self, now: Any) -> Iterable[tuple[str, ...]]:
        if now is self.value or (isinstance(now, _PLAIN) and type(now) is type(self.value) and self._equal(now)):
            return ()
        return [()]

    def _equal(self, now: Any) -> bool:
        return bool(now == self.value) or (now != now and self.value != self.value)

    def restored(self) -> Any:
        return self.value


class _Values(_Kept):
    """A tensor or an array."""

    def __init__(self, value: Any) -> None:
        self.value = value
        tensor = isinstance(value, Tensor)
        self.copy = value.detach().clone() if tensor else value.copy()
        self.requires_grad = tensor and value.requires_grad

    def changes(self, now: Any) -> Iterator[tuple[str, ...]]:
        if isinstance(now, np.ndarray) and isinstance(self.copy, np.ndarray):
            if now.shape != self.copy.shape or now.dtype != self.copy.dtype or now.tobytes() != self.copy.tobytes():
                yield ()
        elif (
            not isinstance(now, Tensor) or not isinstance(self.copy, Tensor) or not _same_bits(self.copy, now.detach())
        ):
            yield ()
        elif now.requires_grad != self.requires_grad:
            yield (_REQUIRES_GRAD,)

    def restored(self) -> Any:
        if isinstance(self.value, np.ndarray):
            self.value[...] = self.copy
            return self.value
        if not _same_bits(self.copy, self.value.detach()):
            self.value.data = self.copy.clone()
        if self.value.requires_grad != self.requires_grad:
            self.value.requires_grad_(self.requires_grad)
        return self.value


class _Container(_Kept):
    """A dict, list, tuple or set."""

    def __init__(self, value: Any, depth: int = 0) -> None:
        self.value = value
        # most are empty: the hooks of each module
        self.inside = {key: _kept(each, depth + 1) for key, each in _items(value)} if value else {}

    def changes(self, now: Any) -> Iterable[tuple[str, ...]]:
        if type(now) is not type(self.value):
            return [()]
        return self._changes(now) if self.inside or now else ()

    def _changes(self, now: Any) -> Iterator[tuple[str, ...]]:
        here = dict(_items(now))
        for key in here.keys() | self.inside.keys():
            if key not in here or key not in self.inside:
                yield (str(key),)
            else:
                for path in self.inside[key].changes(here[key]):
                    yield (str(key), *path)

    def restored(self) -> Any:
        if not self.inside and not self.value:
            return self.value
        before = {key: kept.restored() for key, kept in self.inside.items()}
        if isinstance(self.value, dict):
            here = self.value
            if list(here) != list(before) or any(here[key] is not before[key] for key in before):
                here.clear()
                here.update(before)
        elif isinstance(self.value, list):
            self.value[:] = before.values()
        elif isinstance(self.value, set):
            self.value.clear()
            self.value.update(before)
        return self.value


def _kept(value: Any, depth: int) -> _Kept:
    if isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.flags.writeable):
        return _Values(value)
    if isinstance(value, (dict, list, tuple, set)) and depth < _DEPTH:
        return _Container(value, depth)
    return _Object(value)


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, set):
        yield from ((each, each) for each in value)
    else:
        yield from enumerate(value)


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Attributes but for those in _LEFT, and for what the harness's own wrappers keep to themselves."""
    ours = type(module).__module__.startswith(_HARNESS)
    return {
        name: value
        for name, value in vars(module).items()
        if name not in _LEFT and not (ours and name.startswith("_") and name not in _OF_TORCH)
    }


def _scripted(module: nn.Module) -> dict[str, Tensor]:
    return dict([*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)])


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype or one.device != other.device:
        return False
    return torch.equal(_as_integers(one), _as_integers(other))


def _as_integers(values: Tensor) -> Tensor:
    """The same bits, so that NaN equals NaN."""
    if values.is_complex():
        values = torch.view_as_real(values)
    kind = _INTEGERS.get(values.element_size())
    return (
        values.view(kind) if kind is not None and values.layout is torch.strided and not values.is_quantized else values
    )
