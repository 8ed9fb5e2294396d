"""Weights from a file, without running what is in it: safetensors, or what torch.save wrote."""

from __future__ import annotations

import _codecs
import contextlib
import pickle
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
"""Entries of a checkpoint under which training programs keep the weights."""

PREFIXES = ("module.", "model.")
"""What DataParallel and wrapper modules put before every name."""

_NAMED = 3  # names that an error lists


def existing(file: str | Path, what: str = "weights file") -> Path:
    """The path of a file that is there.

    Raises:
        BenchError: it is not; relative paths are taken from the current folder.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise BenchError(f"{what} {path.absolute()} does not exist: nothing is downloaded, so say where yours is")
    return path


def read_weights(file: str | Path, *, trust_pickle: bool = False) -> State:
    """The named tensors of a checkpoint, on the CPU, with the names that it has.

    A bare state dict, or one kept under one of WRAPPERS. Files that end in .safetensors are read as such, all others
    with torch.load and `weights_only`, which runs no code.

    Args:
        trust_pickle: also read a pickle that needs more than weights, such as a whole pickled model. Reading one runs
            whatever code it holds.

    Raises:
        BenchError: the file is missing, corrupt, a pickle that needs more, or holds no weights.
    """
    path = existing(file)
    content = _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path, trust_pickle)
    return _state(content, path)


def without_prefix(state: State, expected: Collection[str] = ()) -> State:
    """`state` without the PREFIXES that all its names have, as far as the `expected` names do not all have them too."""
    while state:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in state)), None)
        if prefix is None or (expected and all(name.startswith(prefix) for name in expected)):
            break
        state = {name[len(prefix) :]: value for name, value in state.items()}
    return state


def load_weights(
    module: nn.Module, state: State, what: str, ignore: Callable[[str], bool] = lambda name: False
) -> None:
    """Put `state` into `module`, all of it.

    Args:
        what: the model and its file, for the error.
        ignore: names that may be missing, unexpected or of another shape; they are not loaded.

    Raises:
        BenchError: names are missing or unexpected, or shapes differ; the first few are named.
    """
    expected = module.state_dict()
    state = {name: value for name, value in without_prefix(state, expected).items() if not ignore(name)}
    # checkpoints of before PyTorch 0.4.1 have no such counter, and nothing in eval mode reads it
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
            f"{what} does not fit: {'; '.join(wrong)}. Is it of another architecture, or of other settings?"
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
        raise BenchError(f"{path} is no safetensors file, or a damaged one ({_line(error)}): copy it again") from error


def _torch_file(path: Path, trust_pickle: bool) -> Any:
    try:
        with _plain_numpy(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TorchScript, which the error names
            return torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except pickle.UnpicklingError as error:
        needs = re.search(r"GLOBAL (\S+)", str(error))
        if needs:
            raise BenchError(
                f"{path} is a pickle that needs {needs[1]}, so reading it can run code: save its state_dict alone, or "
                "pass trust_pickle=True if you trust where it comes from"
            ) from error
        raise _unreadable(path, error) from error
    except (AttributeError, ImportError) as error:  # a trusted pickle of a class that is not here
        raise BenchError(f"{path} is a pickle that needs code which is not here ({_line(error)})") from error
    except Exception as error:  # what is no pickle ends in any error that there is
        if "TorchScript" in str(error):
            raise BenchError(f"{path} is a TorchScript archive: use TorchScriptModel, or torchscript") from error
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> BenchError:
    return BenchError(
        f"{path} is no checkpoint that torch.load reads, or a damaged one ({_line(error)}): copy it again, or save the "
        "weights with torch.save(model.state_dict(), FILE)"
    )


def _line(error: Exception) -> str:
    """The reason in one line: what the unpickler says at the end, else the first sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = text.rpartition("WeightsUnpickler error: ")[2]
    return re.split(r"(?<=\w)\. |Check the documentation", text)[0].strip()


def _plain_numpy() -> Any:
    """Numbers of NumPy are no danger, and torchreid keeps one (rank1) in each of its checkpoints."""
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
    """The state dict in what a file held."""
    if isinstance(content, nn.Module):
        return dict(content.state_dict())
    if not isinstance(content, Mapping):
        raise BenchError(f"{path} holds a {type(content).__name__} and no weights: save model.state_dict()")
    for name in WRAPPERS:
        if isinstance(content.get(name), (Mapping, nn.Module)):
            return _state(content[name], path)
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state or len(state) < len(content):
        raise BenchError(
            f"{path} holds no state dict: its entries are {_first([str(name) for name in content]) or 'none'}; it must "
            f"be one, or have it under {', '.join(WRAPPERS)}"
        )
    return state
