"""Marks of tensors: which camera took the image that each element was derived from.

Operations that move elements (indexing, cat, flip, reshape) are done to the marks too; those that compute element by
element, or image by image (arithmetic, convolutions), keep them. An element derived from images of different cameras,
or in a way that is not known here, has no camera: never that of another image.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

UNKNOWN = -1
"""Camera of an image that no camera is known of."""

NEUTRAL = -2
"""Mark of what is derived from no image, such as noise: it takes the camera of what it is combined with."""


def plain(images: Tensor) -> Tensor:
    """`images` without marks; the values and the gradient are shared."""
    if not isinstance(images, Marked):
        return images
    with torch._C.DisableTorchFunctionSubclass():
        return images.as_subclass(Tensor)


def marked(images: Tensor, marks: Tensor, cell: list[int]) -> Tensor:
    """Make `images`, the object itself, know `marks`."""
    if not isinstance(images, Marked):
        images.__class__ = Marked
    images.marks, images.cell, images.seen = marks, cell, cell[0]  # type: ignore[attr-defined]
    return images


def marks_of(images: Tensor) -> Tensor:
    """Marks of a tensor: NEUTRAL of one that has none, UNKNOWN if they have changed behind its back."""
    cell = getattr(images, "cell", None)
    if not isinstance(images, Marked) or cell is None:
        return _all(NEUTRAL, images)
    return images.marks if cell[0] == images.seen else _all(UNKNOWN, images)


def by_rows(marks: Tensor) -> Tensor:
    """One mark for each index of the first dimension, UNKNOWN where its elements differ."""
    flat = marks.flatten(1) if marks.ndim > 1 else marks[:, None]
    if not flat.shape[1]:
        return flat.new_full((len(marks),), NEUTRAL)
    highest = flat.amax(dim=1)
    lowest = torch.where(flat == NEUTRAL, highest[:, None], flat).amin(dim=1)
    return torch.where(highest == lowest, highest, UNKNOWN)


class Marked(Tensor):
    """A tensor whose elements know their cameras.

    `marks` is int64 on the CPU, of as many dimensions, each of the size of the tensor's or of 1. Tensors that share
    memory share `cell`, which counts the changes of marks in place: who has not seen the last one knows nothing.
    """

    marks: Tensor
    cell: list[int]
    seen: int

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
            name = getattr(func, "__name__", "")
            if name == "__get__":  # of an attribute
                name = getattr(getattr(func, "__self__", None), "__name__", "")
            if name in _IN_PLACE or (name.endswith("_") and not name.endswith("__")):
                _change(name, args, kwargs)
            elif name not in _PLAIN:
                _carry(func, name, args, kwargs, result)
        return result

    def __deepcopy__(self, memo: Any) -> Tensor:
        return self.detach().clone().requires_grad_(self.requires_grad)


_IN_PLACE = {"__setitem__", *(f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "pow", "and", "or", "xor"))}

_PLAIN = {"grad", "as_subclass", "backward"}
"""Results that take no marks: gradients are changes of images, as noise is."""

_OF_FIRST = {"to", "type_as", "clone", "contiguous", "detach", "data", "float", "double", "half", "cpu", "cuda"}
"""Operations whose further arguments only say how."""

_MOVES = {
    *("__getitem__", "select", "narrow", "index_select", "unbind", "split", "chunk", "tensor_split", "where", "unfold"),
    *("split_with_sizes", "unsafe_split", "unsafe_chunk", "cat", "concat", "concatenate", "stack", "repeat", "roll"),
    *("repeat_interleave", "tile", "expand", "expand_as", "broadcast_to", "flip", "fliplr", "flipud", "rot90"),
    *("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "T", "mT", "H", "mH", "adjoint"),
    *("gather", "take_along_dim", "view", "reshape", "view_as", "reshape_as", "flatten", "unflatten", "ravel", "take"),
    *("masked_select", "diagonal", "squeeze", "unsqueeze"),
}
"""Operations that move or copy elements and compute nothing: done to the marks they give the marks."""

_JOINS = {"cat", "concat", "concatenate", "stack"}

_COUNTS = {"view", "reshape", "view_as", "reshape_as", "flatten", "unflatten", "ravel", "take", "diagonal", "roll"}
"""Those that depend on the number of elements, so that there must be as many marks."""

_ALONG = {
    **dict.fromkeys(("sum", "mean", "amax", "amin", "max", "min", "median", "prod", "std", "var", "logsumexp"), 1),
    **dict.fromkeys(("argmax", "argmin", "any", "all", "nanmean", "nansum", "nanmedian", "aminmax"), 1),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "sort", "argsort"), 1),
    **dict.fromkeys(("scatter", "scatter_add", "scatter_reduce", "index_add", "index_copy", "index_reduce"), 1),
    **dict.fromkeys(("topk", "diff", "norm", "quantile", "kthvalue"), 2),
}
"""Operations along dimensions: position of that argument. If it is the first dimension, or missing, all is mixed."""

_MIXES = {
    *("einsum", "tensordot", "mm", "addmm", "addbmm", "baddbmm", "kron", "cdist", "msort", "gradient", "renorm"),
    *("index_put", "put", "masked_scatter", "select_scatter", "slice_scatter", "diagonal_scatter", "as_strided"),
    *("fft_fftn", "fft_ifftn", "fft_rfftn", "fft_irfftn", "fft_fftshift", "fft_ifftshift", "cov", "corrcoef", "vander"),
    *("cartesian_prod", "block_diag", "combinations", "searchsorted", "bucketize", "cross", "linalg_multi_dot"),
    *("chain_matmul", "bilinear", "multi_head_attention_forward", "lstm", "gru", "rnn_tanh", "rnn_relu", "set"),
    *("trapezoid", "unique", "unique_consecutive", "matrix_exp", "resize", "swap", "map"),
    "scaled_dot_product_attention",
}
"""Operations that may carry values from one image to another: what they return is not marked."""

_PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "bmm"}


def _all(mark: int, images: Tensor) -> Tensor:
    """The same mark for a whole tensor."""
    return torch.full((1,) * images.ndim, mark)


def _carry(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
    """Mark the new tensors in `result`."""
    inputs = [*_tensors((args, kwargs))]
    made = [each for each in _tensors(result) if type(each) is Tensor and not any(each is one for one in inputs)]
    try:
        marks = _marks_of(func, name, args, kwargs, made) if made else []
    except Exception:  # marks must not break what a model or an attack does: what cannot be followed is not known
        return
    for each, found in zip(made, marks, strict=True):
        if found is not None:
            marked(each, found, _cell_of(each, inputs))


def _marks_of(
    func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], made: list[Tensor]
) -> Sequence[Tensor | None]:
    """Marks of the results `made` of an operation, None for those that take none."""
    if name.endswith("_like") or name.startswith("new_"):
        return [_all(NEUTRAL, each) for each in made]
    if name in _MOVES:
        return _moved(func, name, args, kwargs, made)
    if _mixes(name, args, kwargs):
        return [None] * len(made)
    inputs = [*_tensors(args[:1] if name in _OF_FIRST else (args, kwargs))]
    return [_combined(name, inputs, each.shape) for each in made]


def _moved(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], made: list[Tensor]) -> list[Tensor]:
    """Marks after a move: that of the marks as they are, or else of as many marks as there are elements."""
    options, shapes = {key: _argument(value) for key, value in kwargs.items()}, [each.shape for each in made]
    if name not in _COUNTS:
        with contextlib.suppress(RuntimeError, IndexError, ValueError):
            moved = [*_tensors(func(*_with_marks(func, name, args, full=False), **options))]
            if len(moved) == len(shapes) and all(map(_fits, moved, shapes)):
                return moved
    elif name not in ("take", "diagonal", "roll") and made[0].shape[:1] == args[0].shape[:1]:
        marks = marks_of(args[0])
        if marks.shape[:1].numel() == marks.numel():  # rows stay what they are
            return [marks.view(-1, *[1] * (made[0].ndim - 1))]
    moved = [*_tensors(func(*_with_marks(func, name, args, full=True), **options))]
    return [_compact(each) for each in moved] if [each.shape for each in moved] == shapes else []


def _fits(marks: Tensor, shape: torch.Size) -> bool:
    return marks.ndim == len(shape) and all(size in (1, other) for size, other in zip(marks.shape, shape, strict=True))


def _with_marks(func: Any, name: str, args: tuple[Any, ...], full: bool) -> list[Any]:
    """Arguments with marks in place of the tensors that are moved; of their size if `full`."""

    def marks(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return torch.tensor(NEUTRAL)  # a number, of `where`
        expanded = marks_of(value).expand(value.shape) if full else marks_of(value)
        return expanded.contiguous() if full and name in _COUNTS else expanded

    if name in _JOINS:
        return [[marks(each) for each in args[0]], *args[1:]]
    condition = None if name != "where" else 0 if func is torch.where else 1
    moved = range(3) if name == "where" else (0,)
    return [marks(each) if i in moved and i != condition else _argument(each) for i, each in enumerate(args)]


def _argument(value: Any) -> Any:
    """An argument whose tensors are plain and on the CPU, such as an index."""
    if isinstance(value, Tensor):
        return plain(value).detach().cpu()
    return type(value)(map(_argument, value)) if type(value) in (tuple, list) else value


def _combined(name: str, inputs: list[Tensor], shape: torch.Size) -> Tensor | None:
    """Marks of what is computed from `inputs` element by element, or image by image; None if it is neither."""
    marked = [each for each in inputs if isinstance(each, Marked)]
    marks = [marks_of(each) for each in marked]
    try:
        whole = torch.broadcast_shapes(*(each.shape for each in inputs)) == shape and name not in _PRODUCTS
    except RuntimeError:
        whole = False
    if not whole:
        few = name in _PRODUCTS and len(shape) < 3  # a product of two matrices mixes the rows of the second
        if few or any(each.shape[:1] != shape[:1] for each in marked):
            return None
        marks = [by_rows(each).view(-1, *[1] * (len(shape) - 1)) for each in marks]
    found = torch.full((1,) * len(shape), NEUTRAL)
    for each in marks:
        same = torch.where((found == each) | (each == NEUTRAL), found, UNKNOWN)
        found = torch.where(found == NEUTRAL, each, same)
    return found


def _compact(marks: Tensor) -> Tensor:
    """The same marks, with size 1 in dimensions along which they do not change."""
    for free in (True, False):
        for dimension in range(marks.ndim):
            if marks.shape[dimension] > 1 and (marks.stride(dimension) == 0 or not free):
                first = marks.narrow(dimension, 0, 1)
                marks = first if free or bool((marks == first).all()) else marks
    return marks.clone()


def _mixes(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operation may carry values from one index of the first dimension to another."""
    at = _ALONG.get(name)
    given = args[at] if at is not None and len(args) > at else None
    if isinstance(given, Tensor) and name in ("max", "min"):  # of two tensors
        return False
    given = next((kwargs[key] for key in ("dim", "dims", "axis") if kwargs.get(key) is not None), given)
    along = given if isinstance(given, (tuple, list)) else [given]
    dimensions = [each for each in along if isinstance(each, int) and not isinstance(each, bool)]
    rank = max((each.ndim for each in _tensors(args)), default=0)
    if name in _MIXES or any(each in (0, -rank) for each in dimensions):
        return True
    return at is not None and not dimensions and name not in ("sort", "argsort", "topk")


def _cell_of(made: Tensor, inputs: list[Tensor]) -> list[int]:
    """The cell of the marked tensor whose memory `made` shares, or a new one."""
    place = made.untyped_storage().data_ptr()
    for each in inputs:
        if isinstance(each, Marked) and place and each.untyped_storage().data_ptr() == place:
            return each.cell
    return [0]


def _change(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Update the marks of a tensor that was changed in place."""
    target = args[0]
    if type(target) is not Tensor and not isinstance(target, Marked):
        return
    before = marks_of(target)
    try:
        after = _marks_in_place(name, target, args, kwargs)
    except Exception:  # as above
        after = _all(UNKNOWN, target)
    if before.shape != after.shape or not torch.equal(before, after):
        cell = getattr(target, "cell", [0])
        cell[0] += 1
        marked(target, after, cell)


def _marks_in_place(name: str, target: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    before, operation = marks_of(target), name.rstrip("_")
    if name in ("copy_", "__setitem__"):
        index, value = (..., args[1]) if name == "copy_" else (_argument(args[1]), args[2])
        return _assigned(before, target.shape, index, marks_of(value) if isinstance(value, Tensor) else NEUTRAL)
    if operation in _MOVES or before.ndim != target.ndim or _mixes(operation, args, kwargs):
        return _all(UNKNOWN, target)
    found = _combined(name, [*_tensors((args, kwargs))], target.shape)
    return _all(UNKNOWN, target) if found is None else found


def _assigned(marks: Tensor, shape: torch.Size, index: Any, value: Tensor | int) -> Tensor:
    """Marks of a tensor of `shape` after tensor[index] = value."""
    if not isinstance(index, tuple):  # of rows: their elements need no marks of their own
        with contextlib.suppress(RuntimeError, IndexError):
            rows = marks.expand(*shape[:1], *[-1] * (len(shape) - 1)).clone()
            rows[index] = value
            return rows
    full = marks.expand(shape).clone()
    full[index] = value
    return _compact(full)


def _tensors(values: Any) -> Iterator[Tensor]:
    """Tensors in nested tuples, lists and dicts."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (tuple, list, dict)):
        for each in values.values() if isinstance(values, dict) else values:
            yield from _tensors(each)
