"""Read weights from safetensors files and PyTorch checkpoints without running code."""

from __future__ import annotations

import _codecs
import contextlib
import io
import pickle
import pickletools
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from reid_attack_bench.contracts import State
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.files import expanded
from reid_attack_bench.zoo.formats import kind_of, suffix_of

from .prefixes import beside, without_prefix

WRAPPERS = (
    "state_dict", "model", "model_state_dict", "model_state", "net", "network", "params", "weights", "module",
    "student", "teacher", "ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict",
)  # fmt: skip
"""Entries of a checkpoint under which training programs store a state dict."""

_ELSEWHERE = "give the path of what it saves"

_NAMED = 3  # names listed in an error


def existing(file: str | Path, what: str = "weights file") -> Path:
    """The path of an existing file, with ~ expanded; `what` describes it in the error.

    Raises:
        BenchError: there is no such file.
    """
    path = expanded(file)
    if not path.is_file():
        raise BenchError(
            f"{what} {path.absolute()} does not exist; nothing is downloaded: give the path of a local file"
        )
    return path


def read_weights(file: str | Path, *, trust_pickle: bool = False, entry: str = "") -> State:
    """The state dict of a checkpoint, on the CPU, with its original names.

    The file holds a state dict of tensors or NumPy arrays, bare or in an entry such as one of `WRAPPERS`. Of what kind
    it is its content tells, not its suffix: safetensors, or a file of torch.save, which is read with `weights_only` and
    runs no code. Python 2 may have written it.

    Args:
        file: path of the checkpoint.
        trust_pickle: also read pickles that hold more than weights, such as a whole model. Reading such a file runs the
            code in it.
        entry: which weights to take from a checkpoint that holds several, such as "state_dict_ema" or "ema.module"; an
            entry, or a prefix of the names.

    Raises:
        BenchError: the file is missing, corrupt, something else, needs `trust_pickle`, or holds no weights or several.
    """
    path = existing(file)
    suffix = kind_of(path, str(path), _ELSEWHERE)
    try:
        content = _safetensors(path) if suffix == ".safetensors" else _torch_file(path, trust_pickle)
    except BenchError:
        suffix_of(path, str(path), _ELSEWHERE)  # says what is wrong with a file that ends early, or is none of these
        raise
    return state_in(content, path, entry)


def built(build: Callable[[], nn.Module]) -> nn.Module:
    """The model with random weights that are the same every time, because their digest identifies the victim."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # slow initialisation
        torch.manual_seed(0)
        return build().eval()


def load_weights(
    module: nn.Module, state: State, what: str, ignore: Callable[[str], bool] = lambda name: False
) -> None:
    """Load all of `state` into `module`, but for counters and losses that training programs store beside a model.

    Args:
        module: the model, changed in place.
        state: its weights; a prefix is removed, see `prefixes.without_prefix`.
        what: model and file, for the error.
        ignore: tells which names are not loaded; they may be missing, unexpected or of another shape.

    Raises:
        BenchError: names are missing or unexpected, or shapes differ; the first few are listed.
    """
    expected = module.state_dict()
    state = without_prefix(state, expected, what)
    state = {
        name: value for name, value in state.items() if not ignore(name) and (name in expected or not beside(name))
    }
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
                with path.open("rb") as stream:  # of a path, PyTorch would believe the suffix
                    return torch.load(stream, map_location="cpu", weights_only=not trust_pickle)
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
                f"{path} is a TorchScript archive: use TorchScriptModel (torchscript in a suite), with trust_code"
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
    """Allow arrays and numbers of NumPy in checkpoints: they are harmless, and torchreid stores one (rank1)."""
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):  # PyTorch before 2.6
        return contextlib.nullcontext()
    core = np._core if hasattr(np, "_core") else np.core
    made = {"scalar": core.multiarray.scalar, "_reconstruct": core.multiarray._reconstruct}
    return torch.serialization.safe_globals(
        [
            *((made[name], f"numpy.{place}.multiarray.{name}") for place in ("core", "_core") for name in made),
            (np.ndarray, "numpy.ndarray"),
            (np.dtype, "numpy.dtype"),
            *{type(np.dtype(kind)) for kind in "efdbhilqBHILQ?"},
            (_codecs.encode, "_codecs.encode"),
        ]
    )


def state_in(content: Any, path: Path, entry: str = "") -> State:
    """The state dict in the content of a file; see `read_weights`."""
    if isinstance(content, nn.Module):
        content = dict(content.state_dict())
    if not isinstance(content, Mapping):
        raise BenchError(f"{path} holds a {type(content).__name__} instead of weights: save model.state_dict()")
    if entry:
        return state_in(_entry(content, entry, path), path)
    arrays = {str(name): value for name, value in content.items() if _is_array(value)}
    held = [name for name, value in content.items() if _holds_weights(value)]
    held = [name for name in held if name in WRAPPERS] or held
    if len(held) == 1:
        return state_in(content[held[0]], path)
    if held:
        raise BenchError(
            f"{path} holds weights in several entries ({', '.join(map(str, held))}): choose one with entry={held[0]}"
        )
    if not arrays or len(arrays) < sum(not str(name).endswith("_extra_state") for name in content):
        raise BenchError(
            f"{path} holds no state dict: its entries are {_first([str(name) for name in content]) or 'none'}; "
            "expected tensors, or a state dict in an entry such as state_dict or model"
        )
    return {name: _tensor(value) for name, value in arrays.items()}


def _entry(content: Mapping[Any, Any], entry: str, path: Path) -> Any:
    """What `content` holds in an entry, in an entry of an entry ("ema.module"), or in names with that prefix."""
    if entry in content:
        return content[entry]
    below = {str(name)[len(entry) + 1 :]: value for name, value in content.items() if str(name).startswith(f"{entry}.")}
    if below:
        return below
    first, dot, rest = entry.partition(".")
    inner = content.get(first)
    inner = dict(inner.state_dict()) if isinstance(inner, nn.Module) else inner
    if dot and isinstance(inner, Mapping):
        return _entry(inner, rest, path)
    known = dict.fromkeys(str(name).partition(".")[0] for name in content)
    raise BenchError(f"{path} has no entry '{entry}': {nearest(entry, known)}")


def _holds_weights(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return isinstance(value, nn.Module)
    return any(_is_array(each) or (name in WRAPPERS and _holds_weights(each)) for name, each in value.items())


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "fiub")


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
