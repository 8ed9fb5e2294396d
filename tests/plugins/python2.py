"""Checkpoints as Python 2 wrote them: every string, and the bytes of NumPy's numbers, in its own string type."""

from __future__ import annotations

import pickle
import types
from pathlib import Path
from typing import Any, ClassVar

import torch


class _Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]  # in Python, so that its parts can be replaced
    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def _save_text(self, text: str | bytes) -> None:
        content = text if isinstance(text, bytes) else text.encode()
        assert len(content) < 256
        self.write(b"U" + bytes([len(content)]) + content)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = _save_text


def save_as_python_2(content: Any, path: Path) -> None:
    """Save a checkpoint in PyTorch's old format with strings of Python 2."""
    module = types.ModuleType("pickle_of_python_2")
    vars(module).update(Pickler=_Pickler, dump=lambda value, f, protocol: _Pickler(f, protocol).dump(value))
    torch.save(content, path, pickle_module=module, pickle_protocol=2, _use_new_zipfile_serialization=False)
