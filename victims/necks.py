"""The classifier of a checkpoint, and the trained bottleneck in front of it.

Strong baselines put batch normalisation between the pooled features and the classifier (BNNeck; Luo et al., CVPRW 2019,
arXiv 1903.07071). In a checkpoint it is part of what replaces the classifier of a backbone, or stands beside it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal

from torch import Tensor, nn

from reid_attack_bench.contracts import State
from reid_attack_bench.errors import BenchError

Neck = Literal["", "before", "after"]
"""Where the embedding is taken: before or after the bottleneck; "" for a checkpoint that has none."""

_HEADS = re.compile(r"(.*\.)?(classifier|fc|head|heads|cls|logits)(\.\w+)?")
"""Paths of classifiers in the checkpoints of strong baselines, where they are not those of the backbone."""


def without_classifier(
    state: State, expected: Collection[str], heads: tuple[str, ...], width: int, neck: Neck, what: str
) -> tuple[State, nn.BatchNorm1d | None]:
    """`state` without its classifier and bottleneck, and the bottleneck if the embedding is taken after it.

    Args:
        state: without prefix.
        expected: names of the backbone.
        heads: paths of its classifiers.
        width: number of values of its pooled features.
        what: file and model, for errors.

    Raises:
        BenchError: there is a bottleneck and `neck` does not say which side of it is meant, or the reverse; or the
            classifier has other layers in front of its last one, which cannot be rebuilt from their weights.
    """
    beyond = _layers({name: value for name, value in state.items() if name not in expected})
    inside = {path for path in beyond if path in heads or path.startswith(tuple(f"{head}." for head in heads))}
    norms = [path for path, layer in beyond.items() if _is_norm(layer, width)]
    last = {path for path in beyond if path in heads or (_is_linear(beyond[path], width) and _is_head(path, inside))}
    others = sorted(inside - last - set(norms[:1]))
    found = norms[0] if len(norms) == 1 and not others else ""
    if others and neck != "before":
        shown = ", ".join(f"{path} ({_shape(beyond[path])})" for path in sorted(inside))
        raise BenchError(
            f"{what} has a classifier of several layers, {shown}: take the features in front of all of them with "
            "neck=before, or build the network in a file of your own"
        )
    if found and not neck:
        raise BenchError(
            f"{what} has a trained bottleneck in front of its classifier, {found}: say on which side of it the "
            "embedding is, with neck=after or neck=before"
        )
    if neck and not found and not others:
        raise BenchError(f"{what} has no single bottleneck of {width} values: leave out neck={neck}")
    gone = inside | last | ({found} if found else set())
    rest = {name: value for name, value in state.items() if name in expected or name.rpartition(".")[0] not in gone}
    return rest, _norm(beyond[found], width) if neck == "after" else None


def _layers(state: State) -> dict[str, dict[str, Tensor]]:
    """Path of a layer → its weights by their own names."""
    layers: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        path, _, own = name.rpartition(".")
        layers.setdefault(path, {})[own] = value
    return layers


def _is_norm(layer: Mapping[str, Tensor], width: int) -> bool:
    return "running_mean" in layer and layer["running_mean"].shape == (width,)


def _is_linear(layer: Mapping[str, Tensor], width: int) -> bool:
    weight = layer.get("weight")
    return weight is not None and weight.ndim in (2, 4) and weight.shape[1] == width


def _is_head(path: str, inside: Collection[str]) -> bool:
    return path in inside or _HEADS.fullmatch(path) is not None


def _norm(layer: Mapping[str, Tensor], width: int) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(width, affine="weight" in layer)
    norm.load_state_dict(dict(layer), strict=False)  # a frozen bias may be missing, and is zero
    return norm


def _shape(layer: Mapping[str, Tensor]) -> str:
    value = layer.get("weight", next(iter(layer.values())))
    return "×".join(map(str, value.shape))
