"""A plain `nn.Module` as a victim: images are resized and normalised, and its embedding is selected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from reid_attack_bench.contracts.distance import Distance
from reid_attack_bench.contracts.images import IMAGENET_MEAN, IMAGENET_STD, preprocess
from reid_attack_bench.contracts.selection import Pool, checked_pool, embedding_in, names_in, shape_of
from reid_attack_bench.contracts.victim import Victim
from reid_attack_bench.errors import BenchError, VictimError, nearest

_BEFORE = "before:"
_NECK = ("neck_before", "neck_after")


class ModuleVictim(Victim):
    """Wrap a plain `nn.Module` as a victim: images are resized and normalised; `feature` of it is the embedding.

    The module is in eval mode; if it returns something else in training, that is not seen. Images are cast to the type
    of its parameters, such as float16 or bfloat16, and embeddings to float32.

    Args:
        module: N×3×height×width, normalised, to embeddings.
        input_size: (height, width) of its input in pixels.
        mean, std: normalisation per channel, for images in [0, 1]; ImageNet's by default.
        distance: "euclidean" or "cosine".
        defence: short description of its defence; empty for an undefended model.
        trained_on: name of its training data set, if it is in the suite.
        feature: what the embedding is. None for the output of the module, if it is one tensor; position, key or name of
            one of several outputs; "neck_after" or "neck_before", output or input of its only BatchNorm1d; the name of
            a layer, as in module.named_modules(), for its output, or "before:LAYER" for its input. An output's key
            comes before a layer of that name.
        pool: how a feature with more than one axis of values becomes a vector, see `selection.embedding_in`.
        flip: the embedding is the mean of those of an image and of its mirror image.
        differentiable: False for a module that blocks gradients; it is then only a target.

    Raises:
        BenchError: an invalid setting, no such layer, or no single BatchNorm1d.
    """

    # size: each parameter is an option in suite files and an argument of `evaluate`
    def __init__(
        self,
        module: nn.Module,
        input_size: Sequence[int] = (256, 128),
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        distance: Distance = "euclidean",
        defence: str = "",
        trained_on: str = "",
        feature: int | str | None = None,
        pool: Pool = "",
        flip: bool = False,
        differentiable: bool = True,
    ) -> None:
        super().__init__()
        sized = isinstance(input_size, Sequence) and len(input_size) == 2
        if not sized or not all(isinstance(side, int) and side > 0 for side in input_size):
            raise BenchError(f"input_size must be (height, width) in pixels, not {input_size!r}")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise BenchError(f"mean and std must be three numbers each, std positive, not {mean!r} and {std!r}")
        if distance not in get_args(Distance):
            raise BenchError(f"distance must be euclidean or cosine, not {distance!r}")
        self.module = module
        self.input_size = (input_size[0], input_size[1])
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self.distance, self.defence, self.trained_on = distance, defence, trained_on
        self.name = type(module).__name__
        self._feature, self._pool, self._flip = feature, checked_pool(pool), flip
        self._layer = _layer_of(module, feature, self.name)
        # what is said at its default would change the keys of results that were stored before there was a choice
        given = {"feature": feature is not None, "pool": pool != "", "flip": flip}
        if any(given.values()):
            self.key_settings = {name: getattr(self, f"_{name}") for name, is_given in given.items() if is_given}
        if not differentiable:
            self.differentiable = False

    def embed(self, images: Tensor) -> Tensor:
        ready = preprocess(images, self.input_size, self.mean, self.std).to(_type_of(self.module))
        embeddings = self._embedded(ready)
        return (embeddings + self._embedded(ready.flip(-1))) / 2 if self._flip else embeddings

    def _embedded(self, ready: Tensor) -> Tensor:
        seen: list[Any] = []
        removable = self._watch(seen)
        try:
            result = self.module(ready)
        except torch.cuda.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            raise VictimError(
                f"{self.name} does not run on {len(ready)} images of {'×'.join(map(str, ready.shape[2:]))}: "
                f"{' '.join(str(error).split())}"
            ) from error
        finally:
            if removable is not None:
                removable.remove()
        embeddings = self._selected(result, seen)
        if len(embeddings) != len(ready):
            raise VictimError(
                f"{self.name} returned {shape_of(embeddings)} for {len(ready)} images, expected one row each"
            )
        return embeddings

    def _watch(self, seen: list[Any]) -> Any:
        """A hook that adds what the layer of `feature` is given, or returns, to `seen`."""
        if self._layer is None:
            return None
        path, before = self._layer
        layer = self.module.get_submodule(path)
        # copied, since the next layer may work in place
        if before:
            return layer.register_forward_pre_hook(
                lambda module, given, named: seen.append(_copy(next(iter((*given, *named.values())), None))),
                with_kwargs=True,
            )
        return layer.register_forward_hook(lambda module, given, result: seen.append(_copy(result)))

    def _selected(self, result: Any, seen: list[Any]) -> Tensor:
        wanted, what, outputs = self._feature, f"{self.name} (in eval mode)", names_in(result)
        if isinstance(wanted, str) and wanted not in outputs and self._layer is None:
            known = [*map(str, outputs), *filter(None, dict(self.module.named_modules()))]
            raise VictimError(f"feature {wanted}: {what} has no such output or layer: {nearest(wanted, known)}")
        if self._layer is None or wanted in outputs:
            return embedding_in(result, wanted, what, option="feature", pool=self._pool)
        path, before = self._layer
        what = f"the {'input' if before else 'output'} of layer {path} of {what}"
        if len(seen) != 1:
            times = f"runs {len(seen)} times in one pass" if seen else "does not run"
            raise VictimError(f"layer {path} of {self.name} {times}: name a layer that runs once, in eval mode")
        return embedding_in(seen[0], None, what, option="feature", pool=self._pool)


def _layer_of(module: nn.Module, feature: Any, name: str) -> tuple[str, bool] | None:
    """(path of the layer, whether its input is meant) of a feature; None for an output of the module itself."""
    if feature is None or (isinstance(feature, int) and not isinstance(feature, bool)):
        return None
    if not isinstance(feature, str) or not feature:
        raise BenchError(f"feature must be a layer's name, an output's key or position, or None, not {feature!r}")
    layers = dict(module.named_modules())
    if feature in _NECK:
        return _neck(layers, name), feature == "neck_before"
    path = feature.removeprefix(_BEFORE)
    if path in layers:
        return path, path != feature
    if path != feature:
        raise BenchError(f"feature {feature}: {name} has no layer '{path}': {nearest(path, filter(None, layers))}")
    return None


def _neck(layers: dict[str, nn.Module], name: str) -> str:
    necks = [path for path, layer in layers.items() if isinstance(layer, nn.BatchNorm1d)]
    if len(necks) != 1:
        found = f"{len(necks)} ({', '.join(necks)})" if necks else "none"
        raise BenchError(
            f"{name} has no single BatchNorm1d that could be its neck, but {found}: name the layer instead, as "
            'feature="LAYER" for its output or "before:LAYER" for its input'
        )
    return necks[0]


def _type_of(module: nn.Module) -> torch.dtype:
    """Type of the images that a module takes: that of its first floating-point parameter."""
    return next((each.dtype for each in module.parameters() if each.is_floating_point()), torch.float32)


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, (tuple, list)):
        return [_copy(each) for each in value]
    return {name: _copy(each) for name, each in value.items()} if isinstance(value, dict) else value
