"""OpenVINO models: an intermediate representation (.xml beside its .bin), or ONNX, run by OpenVINO."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from reid_attack_bench.errors import BenchError

from .model import ModelFile, Shape, is_channels_last, one_input, unreadable

_TYPES = ("float32", "float16", "float64")


class OpenVinoModel(ModelFile):
    """An OpenVINO model, run on the CPU in single precision. It has no gradients: attacks can only transfer to it."""

    version: ClassVar[int] = 1

    differentiable = False

    def _load(self, path: Path) -> Shape:
        if path.suffix == ".bin":
            raise BenchError(f"{path} holds the weights of an OpenVINO model: give {path.with_suffix('.xml').name}")
        if path.suffix == ".xml" and not path.with_suffix(".bin").is_file():
            raise BenchError(f"{path} has no weights: put {path.with_suffix('.bin').name} into its folder")
        self._compiled: dict[tuple[int, int], Any] = {}
        core = _openvino().Core()
        try:
            model = core.read_model(str(path))
        except Exception as error:
            raise unreadable(path, "OpenVINO model (.xml beside its .bin, or .onnx)", error) from error
        one_input(len(model.inputs), path)
        (only,) = model.inputs
        self._type = only.get_element_type().to_dtype().name
        if self._type not in _TYPES:
            raise BenchError(f"{path} takes images as {self._type}: convert it for {', '.join(_TYPES)}")
        sides = only.get_partial_shape()
        shape: Shape = ()
        if sides.rank.is_static:
            shape = tuple(side.get_length() if side.is_static else None for side in sides)
        self._channels_last = is_channels_last(shape)
        return shape

    def _call(self, images: Tensor) -> Any:
        images = images.permute(0, 2, 3, 1) if self._channels_last else images
        values = images.detach().cpu().float().contiguous().numpy()
        found = self._model()([values.astype(self._type)])
        results = [(port, torch.from_numpy(values.copy()).to(images.device)) for port, values in found.items()]
        if len(results) == 1:
            return results[0][1]
        return {min(port.get_names(), default=str(place)): each for place, (port, each) in enumerate(results)}

    def _model(self) -> Any:
        """The compiled model of this process and its number of threads, which do not survive a fork.

        One of a parent process is kept, since its destructor would wait for threads that are not there.
        """
        key = os.getpid(), torch.get_num_threads()
        if key not in self._compiled:
            core = _openvino().Core()
            # in single precision, where OpenVINO would choose bfloat16 on processors that have it
            settings = {
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": key[1],
                "NUM_STREAMS": 1,
            }
            self._compiled[key] = core.compile_model(core.read_model(str(self.file)), "CPU", settings)
        return self._compiled[key]


def _openvino() -> Any:
    try:
        return importlib.import_module("openvino")
    except ModuleNotFoundError as error:
        raise BenchError("OpenVINO models require openvino, which is not installed: pip install openvino") from error
