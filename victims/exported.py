"""Models exported to one file: TorchScript, torch.export and ONNX."""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from reid_attack_bench.contracts import IMAGENET_MEAN, IMAGENET_STD, Distance, Victim, embedding_in, preprocess
from reid_attack_bench.errors import BenchError, VictimError
from reid_attack_bench.files import file_digest

from .weights import existing

Triple = tuple[float, float, float]

Shape = tuple[int | None, ...]
"""N, C, H and W of the input of an exported model; None for a free dimension, empty if the file does not say."""


class _Exported(Victim):
    # size: each parameter is an option in suite files
    def __init__(
        self,
        file: str | Path,
        *,
        input_size: tuple[int, int] | None = None,
        mean: Triple | None = None,
        std: Triple | None = None,
        scale: int = 1,
        distance: Distance = "cosine",
        defence: str = "",
        trained_on: str = "",
        output: int | str | None = None,
    ) -> None:
        """
        Args:
            file: the exported model, from images N×3×H×W to embeddings. A model exported for a fixed N is run on
                batches of that size.
            input_size: (height, width) in pixels; None for the size in the file, or (256, 128) if it has none.
            mean, std: normalisation per channel, for images in [0, scale]; None for that of ImageNet at scale 1 and for
                none at scale 255. Give (0, 0, 0) and (1, 1, 1) if the model normalises its input itself.
            scale: value of white in the images that the model expects, 1 or 255.
            distance: distance that ranks its embeddings.
            defence: short description of its defence.
            trained_on: name of its training data set, if the bench has it.
            output: position or dict key of the embedding, for a model with several outputs.

        Raises:
            BenchError: the file is missing or corrupt, or has another input size.
        """
        super().__init__()
        if scale not in (1, 255):
            raise BenchError(f"{file}: scale must be 1 or 255 (the value of white in its images), not {scale!r}")
        path = existing(file, "model file")
        shape = self._load(path)
        self.file, self.name = path.absolute(), path.stem
        self.input_size = _input_size(shape, input_size, path)
        self.batch = shape[0] if shape else None
        mean = mean or (IMAGENET_MEAN if scale == 1 else (0.0, 0.0, 0.0))
        std = std or (IMAGENET_STD if scale == 1 else (1.0, 1.0, 1.0))
        self.mean, self.std = tuple(value / scale for value in mean), tuple(value / scale for value in std)
        self.distance, self.defence, self.trained_on, self.output = distance, defence, trained_on, output
        # a victim is identified by its state, which does not contain the graph of an exported model
        external = path.with_name(f"{path.name}.data")  # ONNX stores large weights there
        digests = "".join(file_digest(part) for part in (path, external) if part.is_file())
        content = hashlib.sha256(digests.encode()).digest()
        self.register_buffer("content", torch.tensor(list(content), dtype=torch.uint8))

    def _load(self, path: Path) -> Shape:
        raise NotImplementedError

    def _call(self, images: Tensor) -> Any:
        raise NotImplementedError

    def embed(self, images: Tensor) -> Tensor:
        ready = preprocess(images, self.input_size, self.mean, self.std)
        return torch.cat([self._embed(part) for part in ready.split(self.batch or len(ready))])

    def _embed(self, ready: Tensor) -> Tensor:
        count = len(ready)
        if self.batch and count < self.batch:
            ready = torch.cat((ready, ready[-1:].expand(self.batch - count, -1, -1, -1)))
        try:
            result = self._call(ready)
        except Exception as error:  # each runtime raises its own types
            raise VictimError(
                f"{self.file.name} does not run on {len(ready)} images of {self.input_size[0]}×{self.input_size[1]}: "
                f"{' '.join(str(error).split())}"
            ) from error
        return embedding_in(result, self.output, self.file.name)[:count]


class TorchScriptModel(_Exported):
    """A TorchScript archive, written by torch.jit.save."""

    version: ClassVar[int] = 1

    def _load(self, path: Path) -> Shape:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecation of TorchScript
                self.model = torch.jit.load(path, map_location="cpu").eval()
        except Exception as error:
            raise _unreadable(path, "TorchScript archive", error) from error
        return ()

    def _call(self, images: Tensor) -> Any:
        return self.model(images)


class ExportedModel(_Exported):
    """A torch.export archive (.pt2). Such a file can run code when it is read: only open files that you trust."""

    version: ClassVar[int] = 1

    def _load(self, path: Path) -> Shape:
        logging.disable(logging.WARNING)  # PyTorch also logs the traceback of the error
        try:
            if not zipfile.is_zipfile(path):
                raise ValueError("not a zip archive")
            program = torch.export.load(path)
        except Exception as error:
            raise _unreadable(path, "torch.export archive (.pt2)", error) from error
        finally:
            logging.disable(logging.NOTSET)
        self.model = program.module()
        inputs = [n.meta["val"] for n in program.graph.nodes if n.name in program.graph_signature.user_inputs]
        _one_input(len(inputs), path)
        return tuple(side if isinstance(side, int) else None for side in inputs[0].shape)

    def _call(self, images: Tensor) -> Any:
        return self.model(images)

    def train(self, mode: bool = True) -> ExportedModel:
        """Set the flags only: exported modules have a fixed mode and raise if it is changed."""
        for module in self.modules():
            module.training = mode
        return self


class OnnxModel(_Exported):
    """An ONNX model, run on the CPU by onnxruntime. It has no gradients: attacks can only be transferred to it."""

    version: ClassVar[int] = 1

    differentiable = False

    def _load(self, path: Path) -> Shape:
        runtime = _onnxruntime()
        self._sessions: dict[int, Any] = {}
        try:
            session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:
            raise _unreadable(path, "ONNX model", error) from error
        _one_input(len(session.get_inputs()), path)
        (only,) = session.get_inputs()
        self._half = only.type == "tensor(float16)"
        return tuple(side if isinstance(side, int) else None for side in only.shape)

    def _call(self, images: Tensor) -> Any:
        session = self._session()
        (only,) = session.get_inputs()
        values = images.detach().cpu().contiguous().numpy()
        results = session.run(None, {only.name: values.astype("float16") if self._half else values})
        tensors = [torch.from_numpy(result).to(images.device) for result in results]
        names = [output.name for output in session.get_outputs()]
        return tensors[0] if len(tensors) == 1 else dict(zip(names, tensors, strict=True))

    def _session(self) -> Any:
        """The session of this process: threads of a session do not survive a fork."""
        process = os.getpid()
        if process not in self._sessions:
            runtime = _onnxruntime()
            options = runtime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            path = str(self.file)
            self._sessions = {process: runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])}
        return self._sessions[process]


def _input_size(shape: Shape, given: tuple[int, int] | None, path: Path) -> tuple[int, int]:
    """The size in the file, or `given`, or (256, 128)."""
    wanted = shape[2:] if len(shape) == 4 else (None, None)
    height, width = given or (wanted[0] or 256, wanted[1] or 128)
    if (wanted[0] or height, wanted[1] or width) != (height, width):
        raise BenchError(f"{path} was exported for images of {wanted[0]}×{wanted[1]}, not {height}×{width}")
    return height, width


def _one_input(count: int, path: Path) -> None:
    if count != 1:
        raise BenchError(f"{path} has {count} inputs: export it with one, the images N×3×H×W")


def _unreadable(path: Path, kind: str, error: Exception) -> BenchError:
    reason = " ".join(str(error).split()).partition(". ")[0] or type(error).__name__
    return BenchError(
        f"{path} is not a readable {kind} (it may be corrupt or from another version): {reason}; export it again"
    )


def _onnxruntime() -> Any:
    try:
        return importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise BenchError("ONNX models require onnxruntime, which is not installed: pip install onnxruntime") from error
