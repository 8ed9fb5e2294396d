"""Position embeddings of vision transformers, resized to another number of patches."""

from __future__ import annotations

import importlib
import math
from typing import Any

from torch import nn

from reid_attack_bench.contracts import State

_RATIOS = (1, 2, 3)  # of height to width: square images, and the crops of persons (256×128, 384×128)


def resized_as_timm(state: State, model: Any) -> State:
    """`state` with position embeddings for the input size of a timm model, interpolated as timm does (bicubic).

    The grid that they are for is taken to be square, or two or three times as high as wide. Others are left, and do not
    fit.
    """
    expected, grid = model.state_dict(), getattr(getattr(model, "patch_embed", None), "grid_size", None)
    done = dict(state)
    for name, value in state.items():
        wanted = expected.get(name)
        if not name.endswith("pos_embed") or wanted is None or grid is None or value.ndim != 3 or wanted.ndim != 3:
            continue
        extra = wanted.shape[1] - math.prod(grid)  # class token and registers
        old = _grid_of(value.shape[1] - extra)
        if value.shape == wanted.shape or old is None or extra < 0:
            continue
        layers = importlib.import_module("timm.layers")
        done[name] = layers.resample_abs_pos_embed(value, list(grid), list(old), num_prefix_tokens=extra)
    return done


def resized_as_torchvision(state: State, model: nn.Module) -> State:
    """`state` with position embeddings for the image size of a torchvision model, as torchvision does (bicubic)."""
    name = "encoder.pos_embedding"
    wanted = model.state_dict().get(name)
    if name not in state or wanted is None or state[name].shape == wanted.shape:
        return state
    if state[name].ndim != 3 or math.isqrt(state[name].shape[1] - 1) ** 2 != state[name].shape[1] - 1:
        return state  # and it does not fit
    module = importlib.import_module("torchvision.models.vision_transformer")
    return dict(module.interpolate_embeddings(model.image_size, model.patch_size, dict(state)))


def _grid_of(patches: int) -> tuple[int, int] | None:
    """(rows, columns) of a number of patches; no number is of two ratios."""
    for ratio in _RATIOS:
        width = math.isqrt(max(patches, 0) // ratio)
        if width and ratio * width * width == patches:
            return ratio * width, width
    return None
