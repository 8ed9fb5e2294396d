"""Select the embedding in what a network returns. Nothing is guessed: what is ambiguous is an error that lists it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from torch import Tensor

from reid_attack_bench.errors import BenchError, VictimError

Pool = Literal["", "mean", "max", "cls", "flatten"]
"""Of an output with more than one axis of values: over which of them, see `embedding_in`; "" for none."""

_POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda values: values.mean(dim=_places(values)),
    "max": lambda values: values.amax(dim=_places(values)),
    "cls": lambda values: values[:, 0],
    "flatten": lambda values: values.flatten(1),
}


def embedding_in(
    result: Any, output: int | str | None, what: str, *, option: str = "output", pool: Pool | None = None
) -> Tensor:
    """The embedding in the output of a network; float32 N×D.

    Axes of one value, as in N×D×1×1, are dropped. An output with more than one axis of values needs `pool`: mean or
    maximum over height and width of N×C×H×W and over all tokens of N×T×D; "cls" for the first token of N×T×D; "flatten"
    for all values in one vector.

    Args:
        result: a tensor, or a sequence, mapping or named tuple of tensors, such as a ModelOutput of transformers.
        output: its position, key or name; None if `result` is one tensor, or holds one.
        what: name of the network, for errors.
        option: name of the option that gives `output`, for errors.
        pool: see above; None if the victim has no such option, so that errors do not name it.

    Raises:
        VictimError: `output` is missing or unknown, or the axes of the selected tensor leave a choice.
    """
    what, values = output_in(result, output, what, option=option)
    return _one_vector(values, what, pool)


def output_in(result: Any, output: int | str | None, what: str, *, option: str = "output") -> tuple[str, Tensor]:
    """(name for errors, tensor) of the selected output of a network, with the axes that it has; see `embedding_in`."""
    if isinstance(result, Tensor):
        if output is not None:
            raise VictimError(f"{what} returned one Tensor: leave out {option}={output!r}")
        return what, result
    several = _by_name(result)
    if several is None:
        raise VictimError(f"{what} returned a {type(result).__name__}, expected a tensor")
    if output is None and len(several) == 1:
        (output,) = several
    elif isinstance(output, int) and output not in several:
        output = dict(enumerate(several)).get(output, output)
    if output not in several:
        shapes = ", ".join(f"{name!r}: {shape_of(value)}" for name, value in several.items())
        raise VictimError(f"{what} returned several outputs ({shapes}): select the embedding with {option}=…")
    return output_in(several[output], None, f"output {output!r} of {what}", option=option)


def checked_pool(pool: Any) -> Pool:
    """`pool`, if it is a Pool.

    Raises:
        BenchError: it is not.
    """
    if pool not in get_args(Pool):
        raise BenchError(f"pool must be {', '.join(filter(None, get_args(Pool)))} or empty, not {pool!r}")
    return pool


def names_in(result: Any) -> tuple[Any, ...]:
    """Positions, keys or names of a network's outputs; none if it returned one tensor."""
    return tuple(_by_name(result) or ())


def shape_of(value: Any) -> str:
    """Shape of a tensor in words, such as "2×512"; of anything else its type."""
    return "×".join(map(str, value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _by_name(result: Any) -> dict[Any, Any] | None:
    if isinstance(result, Mapping):
        return dict(result)
    if isinstance(result, tuple) and hasattr(result, "_asdict"):
        return dict(result._asdict())
    return dict(enumerate(result)) if isinstance(result, (tuple, list)) else None


def _one_vector(values: Tensor, what: str, pool: Pool | None) -> Tensor:
    axes = [side for side in values.shape[1:] if side != 1]
    if values.ndim < 2:
        raise VictimError(
            f"{what} gives shape {shape_of(values) or 'of a number'}, expected N×D, one row for each image"
        )
    if len(axes) <= 1:
        return values.flatten(1).float()
    if not pool:
        how = 'pool="mean", "max", "cls" (the first token) or "flatten"' if pool is not None else "a victim of your own"
        raise VictimError(
            f"{what} gives shape {shape_of(values)}, more than one axis of values for each image: say how they make "
            f"one vector with {how}, or select another output"
        )
    if pool == "cls" and values.ndim != 3:
        raise VictimError(f'{what} gives shape {shape_of(values)}: pool="cls" takes the first token of N×T×D')
    return _POOLS[pool](values).flatten(1).float()


def _places(values: Tensor) -> tuple[int, ...]:
    """Axes to pool over: the tokens of N×T×D, height and width of N×C×H×W."""
    return (1,) if values.ndim == 3 else tuple(range(2, values.ndim))
