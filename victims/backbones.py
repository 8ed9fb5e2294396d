"""Backbones of torchvision and timm without their classifiers: the embedding is the pooled features."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from torchvision import models

from reid_attack_bench.contracts import IMAGENET_MEAN, IMAGENET_STD, Distance, State, Victim, preprocess
from reid_attack_bench.errors import BenchError, VictimError, nearest

from .exported import Triple
from .necks import Neck, without_classifier
from .position_embeddings import resized_as_timm, resized_as_torchvision
from .prefixes import without_prefix
from .weights import built, load_weights, read_weights


class _Backbone(Victim):
    # size: what both kinds of backbones set
    def __init__(
        self, model: nn.Module, name: str, size: tuple[int, int], mean: Triple, std: Triple, neck: nn.Module | None
    ) -> None:
        super().__init__()
        self.model = model.eval()
        if neck is not None:  # without one, the digest of the weights stays what it was
            self.neck = neck.eval()
        self.name = name
        self.input_size = (size[0], size[1])
        self.mean, self.std = tuple(mean), tuple(std)

    def embed(self, images: Tensor) -> Tensor:
        ready = preprocess(images, self.input_size, self.mean, self.std)
        try:
            features = self.model(ready).flatten(1)
        except (RuntimeError, AssertionError) as error:
            height, width = self.input_size
            raise VictimError(f"{self.name} does not run at input size {height}×{width}: {error}") from error
        return self.neck(features) if hasattr(self, "neck") else features


class TorchvisionBackbone(_Backbone):
    """A classification model of torchvision; its embedding is the input of its last linear layer.

    Args:
        arch: a name of torchvision.models, such as "resnet50".
        file: its weights, see `weights.read_weights`; the classifier in them is ignored. Position embeddings of a
            vision transformer are resized to `input_size`, see `position_embeddings`.
        untrained: True for random weights instead of a file; they are the same every time.
        input_size: (height, width) in pixels; vision transformers need (224, 224).
        mean, std: normalisation per channel, for images in [0, 1].
        distance: distance that ranks its embeddings.
        defence: short description of its defence.
        trained_on: name of its training data set, if the bench has it.
        trust_pickle, entry: see `weights.read_weights`.
        neck: "before" or "after", for a checkpoint with a trained bottleneck in front of its classifier.

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
        entry: str = "",
        neck: Neck = "",
    ) -> None:
        known = models.list_models(module=models)
        if arch not in known:
            raise BenchError(f"torchvision has no classification model '{arch}': {nearest(arch, known)}")
        model = _torchvision(arch, (input_size[0], input_size[1]))
        head = _last_layer(model)
        last: Any = model.get_submodule(head)
        model.set_submodule(head, nn.Identity())
        width = last.in_channels if isinstance(last, nn.Conv2d) else last.in_features
        source = _Weights(file, untrained, f"torchvision {arch}", trust_pickle, entry, neck)
        found = source.fill(model, (head,), width, resized_as_torchvision)
        super().__init__(model, arch, input_size, mean, std, found)
        self.distance, self.defence, self.trained_on = distance, defence, trained_on


class TimmBackbone(_Backbone):
    """A model of timm (pip install timm) without its classifier.

    Args:
        arch: a name of timm.list_models(), such as "convnext_tiny".
        file: its weights, see `weights.read_weights`; the classifier in them is ignored. Position embeddings of a
            vision transformer are resized to `input_size`, see `position_embeddings`.
        untrained: True for random weights instead of a file; they are the same every time.
        input_size: (height, width) in pixels.
        mean, std: normalisation per channel, for images in [0, 1]; None for the defaults of timm.
        distance: distance that ranks its embeddings.
        defence: short description of its defence.
        trained_on: name of its training data set, if the bench has it.
        settings: further arguments of timm.create_model, such as {"img_size": (256, 128)} for a vision transformer.
        trust_pickle, entry: see `weights.read_weights`.
        neck: "before" or "after", for a checkpoint with a trained bottleneck in front of its classifier.

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
        entry: str = "",
        neck: Neck = "",
    ) -> None:
        timm = _timm()
        if not timm.is_model(arch.partition(".")[0]):  # names of model hubs would be looked up online
            raise BenchError(f"timm has no model '{arch}': {nearest(arch, timm.list_models())}")
        model = _created(timm, arch, settings or {}, (input_size[0], input_size[1]))
        about = model.default_cfg
        heads = about.get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else tuple(heads)
        width = getattr(model, "head_hidden_size", None) or model.num_features
        found = _Weights(file, untrained, f"timm {arch}", trust_pickle, entry, neck).fill(
            model, heads, width, resized_as_timm
        )
        super().__init__(model, arch, input_size, mean or about["mean"], std or about["std"], found)
        self.distance, self.defence, self.trained_on = distance, defence, trained_on


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        missing = error.name or "timm"
        raise BenchError(f"timm models require {missing}, which is not installed: pip install {missing}") from error


def _created(timm: Any, arch: str, settings: Mapping[str, Any], size: tuple[int, int]) -> Any:
    """A model of timm with random weights, made for images of `size` if it is for one size only."""
    options = {"num_classes": 0, **settings, "pretrained": False}  # True would download
    try:
        model = built(lambda: timm.create_model(arch, **options))
        made_for = getattr(getattr(model, "patch_embed", None), "img_size", None)
        if made_for in (None, size) or {"img_size", "dynamic_img_size"} & options.keys():
            return model
        return built(lambda: timm.create_model(arch, img_size=size, **options))
    except (TypeError, RuntimeError, AssertionError) as error:
        raise BenchError(f"timm cannot create {arch} with settings {dict(settings)}: {error}") from error


def _torchvision(arch: str, size: tuple[int, int]) -> Any:
    """A model of torchvision with random weights, made for images of `size` if it is for one size only."""
    model: Any = built(lambda: models.get_model(arch, weights=None))
    if getattr(model, "image_size", size[0]) == size[0] or size[0] != size[1] or size[0] % model.patch_size:
        return model
    return built(lambda: models.get_model(arch, weights=None, image_size=size[0]))


def _last_layer(model: nn.Module) -> str:
    """Name of the classifier: the last linear layer, or the last convolution in SqueezeNet."""
    return [name for name, layer in model.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))][-1]


@dataclass(frozen=True)
class _Weights:
    """Where the weights of a backbone come from; attributes as the options of a backbone, `what` is its name."""

    file: str | Path | None
    untrained: bool
    what: str
    trust_pickle: bool
    entry: str
    neck: Neck

    def fill(
        self, model: nn.Module, heads: tuple[str, ...], width: int, resized: Callable[[State, Any], State]
    ) -> nn.Module | None:
        """Load them into `model`, without its classifiers `heads`; returns the bottleneck after its features, if any.

        Args:
            width: number of features.
            resized: resizes the position embeddings.
        """
        if (self.file is None) is not self.untrained:
            raise BenchError(
                f"{self.what}: file={self.file} with untrained=True: leave one out"
                if self.untrained
                else f"{self.what} has no weights and nothing is downloaded: give their path with file=…, "
                "or untrained=True for random weights"
            )
        if self.file is None:
            if self.neck or self.entry:
                raise BenchError(f"{self.what}: neck and entry are for weights from a file: leave them out")
            return None
        what, expected = f"{self.file}, as {self.what},", model.state_dict()
        state = read_weights(self.file, trust_pickle=self.trust_pickle, entry=self.entry)
        state = without_prefix(state, expected, what)
        state, neck = without_classifier(state, expected, heads, width, self.neck, what)
        load_weights(model, resized(state, model), what)
        return neck
