"""What a convention does is what the project of that name does with a crop; settings that are given come first."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from reid_attack_bench.contracts import IMAGENET_MEAN, IMAGENET_STD, to_float
from reid_attack_bench.errors import BenchError
from reid_attack_bench.victims.exported import CONVENTIONS, TorchScriptModel
from reid_attack_bench.victims.exported.conventions import settled
from tests.test_docs import read, rows, section
from tests.victims.exported.networks import Colours, scripted

CROP = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (97, 41, 3), dtype=np.uint8), (0, 0), 2)
"""uint8 BGR, as OpenCV reads it."""
RGB = np.ascontiguousarray(CROP[:, :, ::-1])


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    """Without an input size of its own."""
    return scripted(Colours(), tmp_path_factory.mktemp("file") / "net.ts")


def cells(image: np.ndarray) -> np.ndarray:
    """What the network makes of its input H×W×3."""
    height, width, _ = image.shape
    return image.reshape(4, height // 4, 2, width // 2, 3).mean((1, 3)).transpose(2, 0, 1).reshape(-1)


def boxmot(size: tuple[int, int], mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)) -> np.ndarray:
    # in floating point: OpenCV's 8 bits are up to 0.75 levels off (test_preprocessing), and not on average right
    crop = CROP.astype(np.float32)
    resized = cv2.cvtColor(cv2.resize(crop, size[::-1], interpolation=cv2.INTER_LINEAR), cv2.COLOR_BGR2RGB)
    feature = cells((resized / 255.0 - mean) / std)
    return feature / np.linalg.norm(feature)


EXPECTED = {
    "boxmot": lambda: boxmot((256, 128)),
    "boxmot-lmbn": lambda: boxmot((384, 128)),
    "boxmot-hacnn": lambda: boxmot((160, 64)),
    "boxmot-clip": lambda: boxmot((256, 128), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "fastreid": lambda: cells(np.asarray(Image.fromarray(RGB).resize((128, 256), Image.Resampling.BICUBIC)) / 1.0),
    "openvino": lambda: cells(np.asarray(Image.fromarray(CROP).resize((128, 256), Image.Resampling.BILINEAR)) / 1.0),
}
"""Each from the crop on disk."""


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_convention_is_what_its_program_does(network: Path, name: str) -> None:
    found = TorchScriptModel(network, convention=name, trust_code=True).embed(to_float(RGB[None])).numpy()[0]
    white = 255 if name in ("fastreid", "openvino") else 1
    atol = 1e-5 if white == 1 else 1e-3  # Pillow's 8 bits, averaged over cells
    np.testing.assert_allclose(found / white, EXPECTED[name]() / white, atol=atol)


def test_settings_that_are_given_come_first(network: Path) -> None:
    image = to_float(RGB[None])
    own = TorchScriptModel(
        network, convention="boxmot", antialias=True, normalise="none", input_size=(64, 32), trust_code=True
    )
    assert own.input_size == (64, 32)
    assert torch.equal(own.embed(image), TorchScriptModel(network, input_size=(64, 32), trust_code=True).embed(image))


@pytest.mark.parametrize(
    ("given", "mean"),
    [
        ({}, (0.485, 0.456, 0.406)),
        ({"channels": "bgr"}, (0.406, 0.456, 0.485)),
        ({"scale": 255}, (0, 0, 0)),
        ({"mean": (1, 2, 3), "scale": 255}, (1, 2, 3)),
    ],
)
def test_the_mean_that_is_meant_if_none_is_given(given, mean) -> None:
    assert settled(None, given)["mean"] == mean


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"convention": "boxmott"}, "convention 'boxmott' does not exist: did you mean 'boxmot'"),
        ({"channels": "bgra"}, "channels 'bgra' does not exist: did you mean 'bgr'"),
        ({"resize": "cubic"}, "resize 'cubic' does not exist: did you mean 'bicubic'"),
        ({"normalise": "part"}, "normalise 'part' does not exist: did you mean 'parts'"),
        ({"flip": "max"}, "flip 'max' does not exist: did you mean 'mean'"),
        ({"pool": "gem"}, "pool 'gem' does not exist"),
    ],
)
def test_a_setting_that_does_not_exist(network: Path, settings, says: str) -> None:
    with pytest.raises(BenchError, match=says):
        TorchScriptModel(network, **settings, trust_code=True)


def test_the_table_in_the_documentation() -> None:
    (columns, *lines) = rows(section(read("victims.md"), "Conventions"))
    names = [each.strip("`") for each in columns[1:]]
    for name, *values in lines:
        found = dict(zip(names, map(yaml.safe_load, values), strict=True))
        made = settled(name.strip("`"), {})
        found["input_size"] = tuple(found["input_size"])
        normalisation = found.pop("mean`, `std")
        kinds = {"ImageNet": (IMAGENET_MEAN, IMAGENET_STD), "in the model": ((0, 0, 0), (1, 1, 1))}
        assert (made.pop("mean"), made.pop("std")) == kinds.get(normalisation, ((0.5,) * 3, (0.5,) * 3))
        assert found == made
    assert {name.strip("`") for name, *_ in lines} == set(CONVENTIONS)
