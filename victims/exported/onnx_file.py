"""ONNX models: run by onnxruntime, or converted to PyTorch for gradients."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from reid_attack_bench.errors import BenchError, VictimError

from .conversion import INSTEAD, converted
from .model import ModelFile, Shape, is_channels_last, one_input, unreadable
from .torch_files import weights_type

_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}

_TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "float64": 1e-4}
"""Largest difference between a converted network and its file, as a share of the largest value."""


class OnnxModel(ModelFile):
    """An ONNX model, run on the CPU by onnxruntime; gradients=True converts it to PyTorch, so that it has gradients."""

    version: ClassVar[int] = 1

    differentiable = False
    model: nn.Module

    def _load(self, path: Path) -> Shape:
        runtime = onnxruntime()
        self._sessions: dict[tuple[int, int], Any] = {}
        try:
            session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:
            raise unreadable(path, "ONNX model", error) from error
        one_input(len(session.get_inputs()), path)
        (only,) = session.get_inputs()
        if only.type not in _TYPES:
            raise BenchError(f"{path} takes images as {only.type}: export it for {', '.join(_TYPES)}")
        self._type = _TYPES[only.type]
        shape = tuple(side if isinstance(side, int) else None for side in only.shape)
        self._channels_last = is_channels_last(shape)
        return shape

    def _call(self, images: Tensor) -> Any:
        images = images.permute(0, 2, 3, 1) if self._channels_last else images
        if self.differentiable:
            return self.model(images.to(weights_type(self.model)))
        session = self._session()
        (only,) = session.get_inputs()
        values = images.detach().cpu().float().contiguous().numpy()
        results = session.run(None, {only.name: values.astype(self._type)})
        tensors = [torch.from_numpy(result).to(images.device) for result in results]
        names = [output.name for output in session.get_outputs()]
        return tensors[0] if len(tensors) == 1 else dict(zip(names, tensors, strict=True))

    def _add_gradients(self) -> None:
        self.model = converted(self.file, onnxruntime())
        images = torch.rand(self.batch or 2, 3, *self.input_size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = self._values(self.preprocessing(images))
            self.differentiable = True
            try:
                found = self._values(self.preprocessing(images))
            except VictimError as error:
                raise BenchError(f"{error}, as onnx2torch converts it: {INSTEAD}") from error
        self._sessions = {}  # a session cannot be copied, as a defence that trains copies its victim
        largest, apart = expected.abs().max().item(), (found - expected).abs().max().item()
        if not apart <= _TOLERANCE[self._type] * largest:
            raise BenchError(
                f"{self.file.name}: the network that onnx2torch makes of it differs by {apart:.1e}, where its largest "
                f"value is {largest:.1e}: {INSTEAD}"
            )

    def _session(self) -> Any:
        """The session of this process and its number of threads: threads of a session do not survive a fork.

        One of a parent process is kept, since its destructor would wait for threads that are not there.
        """
        key = os.getpid(), torch.get_num_threads()
        if key not in self._sessions:
            runtime = onnxruntime()
            options = runtime.SessionOptions()
            options.intra_op_num_threads = key[1]
            path = str(self.file)
            self._sessions[key] = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return self._sessions[key]


def onnxruntime() -> Any:
    """The package.

    Raises:
        BenchError: it is not installed.
    """
    try:
        return importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise BenchError("ONNX models require onnxruntime, which is not installed: pip install onnxruntime") from error
