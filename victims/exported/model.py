"""What all exported models share: their options, batches of the size they were exported for, and errors in one line."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from reid_attack_bench.contracts import Distance, Interpolation, Pool, Victim
from reid_attack_bench.errors import BenchError, VictimError, nearest
from reid_attack_bench.files import file_digest

from ..weights import existing
from .companions import companions
from .conventions import Convention, Triple, settled
from .preprocessing import Channels, Preprocessing
from .readout import Normalise, Readout

_Flip = Literal["mean", "sum"]

Shape = tuple[int | None, ...]
"""Axes of the input of an exported model; None for a free one, empty if the file does not say."""


class ModelFile(Victim):
    """Base class of exported models.

    Attributes:
        is_program: reading or running such a file can run any code, so it is refused without `trust_code`.
    """

    is_program: ClassVar[bool] = False

    # size: each parameter is an option in suite files
    def __init__(
        self,
        file: str | Path,
        *,
        convention: Convention | None = None,
        input_size: tuple[int, int] | None = None,
        mean: Triple | None = None,
        std: Triple | None = None,
        scale: int | None = None,
        channels: Channels | None = None,
        resize: Interpolation | None = None,
        antialias: bool | None = None,
        pad: Triple | None = None,
        distance: Distance = "cosine",
        defence: str = "",
        trained_on: str = "",
        output: int | str | None = None,
        pool: Pool = "",
        flip: bool | _Flip = False,
        normalise: Normalise | None = None,
        parts_axis: int | None = None,
        batch: int | None = None,
        gradients: bool | None = None,
        trust_code: bool = False,
    ) -> None:
        """
        Args:
            file: the exported model, from images N×3×H×W or N×H×W×3 to embeddings.
            convention: name of a set of settings, see `conventions.CONVENTIONS`; settings that are given come first.
            input_size: (height, width) in pixels; None for the size in the file, else that of the convention, else
                (256, 128).
            mean, std: normalisation per channel, in the order of `channels`, for images in [0, scale]; None for that of
                ImageNet at scale 1 and for none at scale 255. Give (0, 0, 0) and (1, 1, 1) if the model normalises its
                input itself.
            scale: value of white in the images that the model expects, 1 or 255; by default 1.
            channels, resize, antialias, pad: see `preprocessing.Preprocessing`.
            distance: distance that ranks its embeddings.
            defence: short description of its defence.
            trained_on: name of its training data set, if the bench has it.
            output, pool, normalise, parts_axis: see `readout.Readout`.
            flip: "mean" (or True) or "sum" of the outputs for an image and for its mirror image, before normalisation.
            batch: number of images that the model was exported for, if the file does not say.
            gradients: True to ask for gradients: of ONNX they need a conversion. False for a target only. None for
                what the format has.
            trust_code: also read files that are programs, TorchScript and torch.export: they can write files, or run
                any code. It is no part of the store's keys.

        Raises:
            BenchError: the file is missing or corrupt, needs `trust_code`, has another input, or has no gradients; a
                wrong setting.
        """
        super().__init__()
        path = existing(file, "model file")
        if self.is_program and not trust_code:
            raise BenchError(
                f"{path} is a program, so reading it can run code or write files: pass trust_code=True (in a suite "
                "trust_code: true) if you trust the file, or export it to ONNX"
            )
        flip = "mean" if flip is True else flip
        _check(path, scale, {"convention": (convention, Convention), "channels": (channels, Channels),
                             "resize": (resize, Interpolation), "normalise": (normalise, Normalise),
                             "pool": (pool or None, Pool), "flip": (flip or None, _Flip)})  # fmt: skip
        given = {"input_size": input_size, "mean": mean, "std": std, "scale": scale, "channels": channels,
                 "resize": resize, "antialias": antialias, "normalise": normalise}  # fmt: skip
        chosen = settled(convention, given)
        self.file, self.name = path.absolute(), path.stem
        shape = _channels_first(self._load(path), path)
        self.input_size = _input_size(shape, input_size, chosen["input_size"], path)
        self.batch = batch or (shape[0] if shape else None)
        if shape and shape[0] not in (None, self.batch):
            raise BenchError(f"{path} was exported for batches of {shape[0]} images, not {batch}: leave out batch")
        mean, std = (tuple(value / chosen["scale"] for value in chosen[name]) for name in ("mean", "std"))
        self.preprocessing = Preprocessing(
            self.input_size, mean, std, chosen["channels"], chosen["resize"], chosen["antialias"], pad
        )
        self.readout = Readout(output, pool, chosen["normalise"], parts_axis)
        self.flip = flip or ""
        self.distance, self.defence, self.trained_on = distance, defence, trained_on
        self._one_by_one = False
        # a victim is identified by its state, which does not contain the graph of an exported model
        digests = "".join(file_digest(part) for part in (path, *companions(path)))
        content = hashlib.sha256(digests.encode()).digest()
        self.register_buffer("content", torch.tensor(list(content), dtype=torch.uint8))
        if gradients and not self.differentiable:
            self._add_gradients()
        if gradients is False:
            self.differentiable = False

    def _load(self, path: Path) -> Shape:
        """Read the file; the shape of its input."""
        raise NotImplementedError

    def _call(self, images: Tensor) -> Any:
        """Its output for images as it wants them, in any floating-point type."""
        raise NotImplementedError

    def _add_gradients(self) -> None:
        raise BenchError(f"{self.file.name}: models of this format have no gradients here: leave out gradients=true")

    def embed(self, images: Tensor) -> Tensor:
        if not self.differentiable:
            images = images.detach()
        ready = self.preprocessing(images)
        values = self._values(ready)
        if self.flip:
            values = values + self._values(ready.flip(3))
            values = values / 2 if self.flip == "mean" else values
        return self.readout(values)

    def _values(self, ready: Tensor) -> Tensor:
        """The output that is the embedding, for any number of images; see `batch`."""
        if self._one_by_one:
            return torch.cat([self._run(part) for part in ready.split(1)])
        if self.batch or len(ready) == 1:
            return torch.cat([self._run(part) for part in ready.split(self.batch or 1)])
        try:
            return self._run(ready)
        except VictimError as error:  # it may have been exported for one image, of which TorchScript says nothing
            try:
                first = self._run(ready[:1])
            except VictimError:
                raise error from None
            self._one_by_one = True
            return torch.cat([first, *(self._run(part) for part in ready[1:].split(1))])

    def _run(self, ready: Tensor) -> Tensor:
        count, size = len(ready), self.batch or len(ready)
        if count < size:
            ready = torch.cat((ready, ready[-1:].expand(size - count, -1, -1, -1)))
        try:
            result = self._call(ready)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # each runtime raises its own types
            raise VictimError(
                f"{self.file.name} does not run on {size} images of {self.input_size[0]}×{self.input_size[1]}: "
                f"{reason(error)}"
            ) from error
        values = self.readout.selected(result, self.file.name)
        if len(values) != size:
            raise VictimError(
                f"{self.file.name} returned {'×'.join(map(str, values.shape))} for {size} images, expected one row "
                "each: if it was exported for a fixed number of images, give it with batch=…"
            )
        return values[:count]


def unreadable(path: Path, kind: str, error: Exception) -> BenchError:
    """The error for a file that its runtime cannot read."""
    return BenchError(
        f"{path} is not a readable {kind} (it may be corrupt or from another version): "
        f"{reason(error).partition('. ')[0]}; export it again"
    )


def reason(error: Exception) -> str:
    """The reason in one line: what comes last, where a runtime puts its own traceback before it."""
    text = " ".join(str(error).split())
    last = re.split(r"\b\w+Error: |Exception from \S+:\d+: ?", text)[-1].strip()
    return (last or text or type(error).__name__)[:300]


def one_input(count: int, path: Path) -> None:
    """Raises BenchError for a model with another number of inputs."""
    if count != 1:
        raise BenchError(f"{path} has {count} inputs: export it with one, the images N×3×H×W")


def _channels_first(shape: Shape, path: Path) -> Shape:
    """The shape as N×3×H×W, also of a model of images N×H×W×3, which `is_channels_last`."""
    if not shape:
        return shape
    if len(shape) == 4 and is_channels_last(shape):
        return shape[0], shape[3], shape[1], shape[2]
    if len(shape) == 4 and shape[1] in (3, None):
        return shape
    sides = "×".join("?" if side is None else str(side) for side in shape)
    raise BenchError(f"{path} has an input of shape {sides}: export it for images N×3×H×W or N×H×W×3")


def is_channels_last(shape: Shape) -> bool:
    """Whether the input of an exported model is N×H×W×3, as TensorFlow has it."""
    return len(shape) == 4 and shape[3] == 3 and shape[1] != 3


def _input_size(shape: Shape, given: tuple[int, int] | None, usual: tuple[int, int], path: Path) -> tuple[int, int]:
    """`given`, or the size in the file, or the `usual` one."""
    wanted = shape[2:] if shape else (None, None)
    height, width = given or (wanted[0] or usual[0], wanted[1] or usual[1])
    if (wanted[0] or height, wanted[1] or width) != (height, width):
        raise BenchError(f"{path} was exported for images of {wanted[0]}×{wanted[1]}, not {height}×{width}")
    return height, width


def _check(path: Path, scale: int | None, settings: dict[str, tuple[Any, Any]]) -> None:
    if scale not in (1, 255, None):
        raise BenchError(f"{path}: scale must be 1 or 255 (the value of white in its images), not {scale!r}")
    for name, (value, kind) in settings.items():
        if value is not None and value not in get_args(kind):
            raise BenchError(f"{path}: {name} {value!r} does not exist: {nearest(str(value), get_args(kind))}")
