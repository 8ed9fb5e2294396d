"""Backbones of torchvision and timm without their classifiers: the embedding is the pooled features."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from torchvision import models

from reid_attack_bench.contracts import IMAGENET_MEAN, IMAGENET_STD, Distance, Victim, preprocess
from reid_attack_bench.errors import BenchError, VictimError, nearest

from .exported import Triple
from .weights import built, load_weights, read_weights


class _Backbone(Victim):
    def __init__(self, model: nn.Module, name: str, size: tuple[int, int], mean: Triple, std: Triple) -> None:
        super().__init__()
        self.model = model.eval()
        self.name = name
        self.input_size = (size[0], size[1])
        self.mean, self.std = tuple(mean), tuple(std)

    def embed(self, images: Tensor) -> Tensor:
        ready = preprocess(images, self.input_size, self.mean, self.std)
        try:
            return self.model(ready).flatten(1)
        except (RuntimeError, AssertionError) as error:
            height, width = self.input_size
            raise VictimError(f"{self.name} does not run at input size {height}×{width}: {error}") from error


class TorchvisionBackbone(_Backbone):
    """A classification model of torchvision; its embedding is the input of its last linear layer.

    Args:
        arch: a name of torchvision.models, such as "resnet50".
        file: its weights, see `weights.read_weights`; the classifier in them is ignored.
        untrained: True for random weights instead of a file; they are the same every time.
        input_size: (height, width) in pixels; vision transformers need (224, 224).
        mean, std: normalisation per channel, for images in [0, 1].
        distance: distance that ranks its embeddings.
        defence: short description of its defence.
        trained_on: name of its training data set, if the bench has it.
        trust_pickle: see `weights.read_weights`.

    Raises:
        BenchError: unknown architecture; neither file nor untrained; the file is missing, corrupt, or does not fit.
    """

    version: ClassVar[int] = 1

    # size: each parameter is an option in suite files
    def __init__(
        self,
        arch: str,
        file: str | Path | None = None,
        *,
        untrained: bool = False,
        input_size: tuple[int, int] = (256, 128),
        mean: Triple = IMAGENET_MEAN,
        std: Triple = IMAGENET_STD,
        distance: Distance = "cosine",
        defence: str = "",
        trained_on: str = "",
        trust_pickle: bool = False,
    ) -> None:
        known = models.list_models(module=models)
        if arch not in known:
            raise BenchError(f"torchvision has no classification model '{arch}': {nearest(arch, known)}")
        model = built(lambda: models.get_model(arch, weights=None))
        head = _last_layer(model)
        model.set_submodule(head, nn.Identity())
        _fill(model, file, untrained, f"torchvision {arch}", f"{head}.", trust_pickle)
        super().__init__(model, arch, input_size, mean, std)
        self.distance, self.defence, self.trained_on = distance, defence, trained_on


class TimmBackbone(_Backbone):
    """A model of timm (pip install timm) without its classifier.

    Args:
        arch: a name of timm.list_models(), such as "convnext_tiny".
        file: its weights, see `weights.read_weights`; the classifier in them is ignored.
        untrained: True for random weights instead of a file; they are the same every time.
        input_size: (height, width) in pixels.
        mean, std: normalisation per channel, for images in [0, 1]; None for the defaults of timm.
        distance: distance that ranks its embeddings.
        defence: short description of its defence.
        trained_on: name of its training data set, if the bench has it.
        settings: further arguments of timm.create_model, such as {"img_size": (256, 128)} for a vision transformer.
        trust_pickle: see `weights.read_weights`.

    Raises:
        BenchError: timm is not installed; unknown architecture; neither file nor untrained; the file is missing,
            corrupt, or does not fit.
    """

    version: ClassVar[int] = 1

    # size: each parameter is an option in suite files
    def __init__(
        self,
        arch: str,
        file: str | Path | None = None,
        *,
        untrained: bool = False,
        input_size: tuple[int, int] = (256, 128),
        mean: Triple | None = None,
        std: Triple | None = None,
        distance: Distance = "cosine",
        defence: str = "",
        trained_on: str = "",
        settings: Mapping[str, Any] | None = None,
        trust_pickle: bool = False,
    ) -> None:
        timm = _timm()
        if not timm.is_model(arch.partition(".")[0]):  # names of model hubs would be looked up online
            raise BenchError(f"timm has no model '{arch}': {nearest(arch, timm.list_models())}")
        options = {"num_classes": 0, **(settings or {}), "pretrained": False}  # True would download
        try:
            model: Any = built(lambda: timm.create_model(arch, **options))
        except (TypeError, RuntimeError, AssertionError) as error:
            raise BenchError(f"timm cannot create {arch} with settings {dict(settings or {})}: {error}") from error
        about = model.default_cfg
        heads = about.get("classifier") or ()
        prefixes = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
        _fill(model, file, untrained, f"timm {arch}", prefixes, trust_pickle)
        super().__init__(model, arch, input_size, mean or about["mean"], std or about["std"])
        self.distance, self.defence, self.trained_on = distance, defence, trained_on


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        missing = error.name or "timm"
        raise BenchError(f"timm models require {missing}, which is not installed: pip install {missing}") from error


def _last_layer(model: nn.Module) -> str:
    """Name of the classifier: the last linear layer, or the last convolution in SqueezeNet."""
    return [name for name, layer in model.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))][-1]


def _fill(
    model: nn.Module,
    file: str | Path | None,
    untrained: bool,
    what: str,
    classifier: str | tuple[str, ...],
    trust_pickle: bool,
) -> None:
    if (file is None) is not untrained:
        raise BenchError(
            f"{what}: file={file} with untrained=True: leave one out"
            if untrained
            else f"{what} has no weights and nothing is downloaded: give their path with file=…, "
            "or untrained=True for random weights"
        )
    if file is not None:
        state = read_weights(file, trust_pickle=trust_pickle)
        load_weights(model, state, f"{file}, as {what},", ignore=lambda name: name.startswith(classifier))
