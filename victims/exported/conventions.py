"""Settings of exported models that are known by the name of the project that exports them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from reid_attack_bench.contracts import IMAGENET_MEAN, IMAGENET_STD

Triple = tuple[float, float, float]

Convention = Literal["boxmot", "boxmot-lmbn", "boxmot-hacnn", "boxmot-clip", "fastreid", "openvino"]

_DEFAULTS: Mapping[str, Any] = {
    "input_size": (256, 128),
    "scale": 1,
    "channels": "rgb",
    "resize": "bilinear",
    "antialias": True,
    "normalise": "none",
}

# boxmot/reid/core/preprocessing.py, crops.py and backends/base_backend.py of https://github.com/mikel-brostrom/boxmot:
# cv2.resize, RGB, ImageNet's normalisation, L2-normalised features; what differs depends on the name of the model
_BOXMOT = {"antialias": False, "normalise": "whole"}

CONVENTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "boxmot": _BOXMOT,
        "boxmot-lmbn": {**_BOXMOT, "input_size": (384, 128)},
        "boxmot-hacnn": {**_BOXMOT, "input_size": (160, 64)},
        "boxmot-clip": {**_BOXMOT, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
        # fastreid/data/transforms/build.py (Pillow's bicubic) and modeling/meta_arch/baseline.py (pixel_mean is inside)
        # of https://github.com/JDAI-CV/fast-reid
        "fastreid": {"scale": 255, "resize": "bicubic"},
        # README.md and accuracy-check.yml of models/intel/person-reidentification-retail-0277, -0286, -0287 and -0288
        # of https://github.com/openvinotoolkit/open_model_zoo
        "openvino": {"scale": 255, "channels": "bgr"},
    }
)
"""Name → the settings that differ from the defaults. A mean or standard deviation that is left out is ImageNet's at
scale 1, and none at scale 255, where the network normalises by itself."""


def settled(convention: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings given, completed by those of the convention and by the defaults; None stands for not given."""
    own = {name: value for name, value in given.items() if value is not None}
    chosen = {**_DEFAULTS, **CONVENTIONS.get(convention or "", {}), **own}
    plain, order = chosen["scale"] == 1, slice(None, None, 1 if chosen["channels"] == "rgb" else -1)
    normalisation = {
        "mean": IMAGENET_MEAN[order] if plain else (0.0, 0.0, 0.0),
        "std": IMAGENET_STD[order] if plain else (1.0, 1.0, 1.0),
    }
    return {**normalisation, **chosen}
