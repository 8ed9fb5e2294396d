"""Read weights from safetensors files and PyTorch checkpoints without running code."""

from __future__ import annotations

import _codecs
import contextlib
import io
import pickle
import pickletools
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from reid_attack_bench.contracts import State
from reid_attack_bench.errors import BenchError

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys of a checkpoint under which training programs store the state dict."""

PREFIXES = ("module.", "model.")
"""Prefixes that DataParallel and wrapper modules add to every name."""

_NAMED = 3  # names listed in an error


def existing(file: str | Path, what: str = "weights file") -> Path:
    """The path of an existing file, with ~ expanded; `what` describes it in the error.

    Raises:
        BenchError: there is no such file.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise BenchError(
            f"{what} {path.absolute()} does not exist; nothing is downloaded: give the path of a local file"
        )
    return path


def read_weights(file: str | Path, *, trust_pickle: bool = False) -> State:
    """The state dict of a checkpoint, on the CPU, with its original names.

    The file holds a state dict, bare or under one of `WRAPPERS`. Files that end in .safetensors are read with
    safetensors, all others with torch.load and `weights_only`, which runs no code. Python 2 may have written them.

    Args:
        file: path of the checkpoint.
        trust_pickle: also read pickles that hold more than weights, such as a whole model. Reading such a file runs the
            code in it.

    Raises:
        BenchError: the file is missing, corrupt, needs `trust_pickle`, or holds no weights.
    """
    path = existing(file)
    content = _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path, trust_pickle)
    return _state(content, path)


def built(build: Callable[[], nn.Module]) -> nn.Module:
    """The model with random weights that are the same every time, because their digest identifies the victim."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # slow initialisation
        torch.manual_seed(0)
        return build().eval()


def without_prefix(state: State, expected: Collection[str] = ()) -> State:
    """Remove each of `PREFIXES` that all names of `state` share, unless all `expected` names share it too."""
    while state:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in state)), None)
        if prefix is None or (expected and all(name.startswith(prefix) for name in expected)):
            break
        state = {name[len(prefix) :]: value for name, value in state.items()}
    return state


def load_weights(
    module: nn.Module, state: State, what: str, ignore: Callable[[str], bool] = lambda name: False
) -> None:
    """Load all of `state` into `module`.

    Args:
        module: the model, changed in place.
        state: its weights; prefixes are removed, see `without_prefix`.
        what: model and file, for the error.
        ignore: tells which names are not loaded; they may be missing, unexpected or of another shape.

    Raises:
        BenchError: names are missing or unexpected, or shapes differ; the first few are listed.
    """
    expected = module.state_dict()
    state = {name: value for name, value in without_prefix(state, expected).items() if not ignore(name)}
    # checkpoints from before PyTorch 0.4.1 lack this counter, and eval mode does not use it
    missing = [n for n in expected if n not in state and not ignore(n) and not n.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in expected]
    other = [
        f"{name} ({_shape(value)} in the file, {_shape(expected[name])} in the model)"
        for name, value in state.items()
        if name in expected and value.shape != expected[name].shape
    ]
    wrong = [
        f"{kind} {_first(names)}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", other))
        if names
    ]
    if wrong:
        raise BenchError(
            f"{what} does not fit: {'; '.join(wrong)}. Check that architecture and settings match the checkpoint."
        )
    module.load_state_dict(state, strict=False)


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _shape(value: Tensor) -> str:
    return "×".join(map(str, value.shape)) or "a number"


def _safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BenchError(
            f"{path} is not a readable safetensors file (it may be corrupt): {_line(error)}; copy it again"
        ) from error


def _torch_file(path: Path, trust_pickle: bool) -> Any:
    try:
        with _plain_numpy(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript archives, which the error names
            try:
                return torch.load(path, map_location="cpu", weights_only=not trust_pickle)
            except ValueError:  # text that is not Unicode, or numbers of another length
                content = io.BytesIO(_without_bytes_of_python_2(path.read_bytes()))
                return torch.load(content, map_location="cpu", weights_only=not trust_pickle)
    except pickle.UnpicklingError as error:
        needs = re.search(r"GLOBAL (\S+)", str(error))
        if needs:
            raise BenchError(
                f"{path} is a pickle that needs {needs[1]}, so reading it can run code: save only its state_dict, or "
                "pass trust_pickle=True if you trust the file"
            ) from error
        raise _unreadable(path, error) from error
    except (AttributeError, ImportError) as error:  # a trusted pickle of a class that cannot be imported
        raise BenchError(f"{path} is a pickle that needs code which is not installed: {_line(error)}") from error
    except Exception as error:  # unpickling other files can raise anything
        if "TorchScript" in str(error):
            raise BenchError(
                f"{path} is a TorchScript archive: use TorchScriptModel (torchscript in a suite)"
            ) from error
        raise _unreadable(path, error) from error


def _without_bytes_of_python_2(content: bytes) -> bytes:
    """A checkpoint with the strings of Python 2 as Unicode, which is how NumPy reads its numbers in such files.

    Five pickles make a checkpoint of that time; the tensors after them stay as they are. Nothing is built here.
    """
    stream, parts, done = io.BytesIO(content), [], 0
    for _ in range(5):
        for operation, text, position in pickletools.genops(stream):
            if operation.name in ("SHORT_BINSTRING", "BINSTRING"):
                encoded = str(text).encode()
                parts += [content[done : position or 0], b"X", len(encoded).to_bytes(4, "little"), encoded]
                done = stream.tell()
    return b"".join([*parts, content[done:]])


def _unreadable(path: Path, error: Exception) -> BenchError:
    return BenchError(
        f"{path} is not a readable PyTorch checkpoint (it may be corrupt): {_line(error)}; copy it again, or save the "
        "weights with torch.save(model.state_dict(), FILE)"
    )


def _line(error: Exception) -> str:
    """The reason in one line: the last words of the unpickler, else the first sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = text.rpartition("WeightsUnpickler error: ")[2]
    return re.split(r"(?<=\w)\. |Check the documentation", text)[0].strip()


def _plain_numpy() -> Any:
    """Allow NumPy numbers in checkpoints: they are harmless, and torchreid stores one (rank1)."""
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):  # PyTorch before 2.6
        return contextlib.nullcontext()
    core = np._core if hasattr(np, "_core") else np.core
    scalar = core.multiarray.scalar
    return torch.serialization.safe_globals(
        [
            *((scalar, f"numpy.{place}.multiarray.scalar") for place in ("core", "_core")),
            (np.dtype, "numpy.dtype"),
            *{type(np.dtype(name)) for name in ("float32", "float64", "int64")},
            (_codecs.encode, "_codecs.encode"),
        ]
    )


def _state(content: Any, path: Path) -> State:
    """The state dict in the content of a file."""
    if isinstance(content, nn.Module):
        return dict(content.state_dict())
    if not isinstance(content, Mapping):
        raise BenchError(f"{path} holds a {type(content).__name__} instead of weights: save model.state_dict()")
    for name in WRAPPERS:
        if isinstance(content.get(name), (Mapping, nn.Module)):
            return _state(content[name], path)
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state or len(state) < len(content):
        raise BenchError(
            f"{path} holds no state dict: its entries are {_first([str(name) for name in content]) or 'none'}; "
            f"expected tensors, or a state dict under {', '.join(WRAPPERS)}"
        )
    return state
