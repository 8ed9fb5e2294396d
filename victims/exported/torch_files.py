"""Models exported by PyTorch: TorchScript and torch.export."""

from __future__ import annotations

import logging
import warnings
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .model import ModelFile, Shape, is_channels_last, one_input, unreadable


class TorchScriptModel(ModelFile):
    """A TorchScript archive, written by torch.jit.save. Its code can write files, when it is read and when it runs."""

    is_program: ClassVar[bool] = True

    version: ClassVar[int] = 1

    def _load(self, path: Path) -> Shape:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecation of TorchScript
                self.model = torch.jit.load(path, map_location="cpu").eval()
        except Exception as error:
            raise unreadable(path, "TorchScript archive", error) from error
        return ()

    def _call(self, images: Tensor) -> Any:
        return self.model(images.to(weights_type(self.model)))


class ExportedModel(ModelFile):
    """A torch.export archive (.pt2). PyTorch reads pickles in it, which can run any code."""

    is_program: ClassVar[bool] = True

    version: ClassVar[int] = 1

    def _load(self, path: Path) -> Shape:
        logging.disable(logging.WARNING)  # PyTorch also logs the traceback of the error
        try:
            if not zipfile.is_zipfile(path):
                raise ValueError("not a zip archive")
            program = torch.export.load(path)
        except Exception as error:
            raise unreadable(path, "torch.export archive (.pt2)", error) from error
        finally:
            logging.disable(logging.NOTSET)
        self.model = program.module()
        inputs = [n.meta["val"] for n in program.graph.nodes if n.name in program.graph_signature.user_inputs]
        one_input(len(inputs), path)
        shape = tuple(side if isinstance(side, int) else None for side in inputs[0].shape)
        self._channels_last, self._type = is_channels_last(shape), inputs[0].dtype
        return shape

    def _call(self, images: Tensor) -> Any:
        return self.model((images.permute(0, 2, 3, 1) if self._channels_last else images).to(self._type))

    def train(self, mode: bool = True) -> ExportedModel:
        """Set the flags only: exported modules have a fixed mode and raise if it is changed."""
        for module in self.modules():
            module.training = mode
        return self


def weights_type(module: nn.Module) -> torch.dtype:
    """Type of the images that a module takes: that of its first floating-point parameter or buffer, else float32."""
    tensors = (*module.parameters(), *module.buffers())
    return next((each.dtype for each in tensors if each.is_floating_point()), torch.float32)
