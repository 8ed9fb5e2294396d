"""The input of a network is what OpenCV, Pillow, torchvision and BoxMOT make of an image, and it is differentiable."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize as torchvision_resize

from reid_attack_bench.victims.exported.preprocessing import Preprocessing

NONE, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
SIZES = [((128, 64), (256, 128)), ((77, 41), (256, 128)), ((300, 151), (256, 128)), ((256, 128), (384, 128))]
OPENCV = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
TORCHVISION = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def picture(height: int, width: int, blurred: bool = False) -> np.ndarray:
    """uint8 RGB H×W×3: noise, or with the edges of a photograph."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3) if blurred else noise


def prepared(image: np.ndarray, *settings, size: tuple[int, int], **more) -> np.ndarray:
    """float RGB H×W×3, 255 for white."""
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    return Preprocessing(size, NONE, ONE, *settings, **more)(tensor)[0].permute(1, 2, 0).numpy() * 255


@pytest.mark.parametrize(("given", "size"), SIZES)
@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
def test_without_antialias_it_is_opencv(kind: str, given: tuple[int, int], size: tuple[int, int]) -> None:
    image = picture(*given)
    found = prepared(image, size=size, resize=kind, antialias=False)
    exact = cv2.resize(image.astype(np.float32), size[::-1], interpolation=OPENCV[kind]).clip(0, 255)
    rounded = cv2.resize(image, size[::-1], interpolation=OPENCV[kind])
    np.testing.assert_allclose(found, exact, atol=5e-3)  # largest found: 2.8e-3 of 255
    np.testing.assert_allclose(found, rounded, atol=0.8)  # OpenCV calculates in 11 bits; largest found: 0.75


@pytest.mark.parametrize(("given", "size"), SIZES)
@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
def test_with_antialias_it_is_pillow(kind: str, given: tuple[int, int], size: tuple[int, int]) -> None:
    image = picture(*given)
    found = prepared(image, size=size, resize=kind)
    channels = [Image.fromarray(image[..., each].astype(np.float32)) for each in range(3)]
    exact = np.stack([np.asarray(each.resize(size[::-1], PILLOW[kind])) for each in channels], axis=2)
    np.testing.assert_allclose(found, exact.clip(0, 255), atol=5e-3)  # largest found: 2.6e-3


@pytest.mark.parametrize(("given", "size"), SIZES)
@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
def test_with_antialias_it_is_the_resize_of_photographs_of_torchvision(
    kind: str, given: tuple[int, int], size: tuple[int, int]
) -> None:
    """Which is Pillow's, and rounds to 8 bits after rows and after columns."""
    image = picture(*given, blurred=True)
    found = prepared(image, size=size, resize=kind)
    rounded = np.asarray(torchvision_resize(Image.fromarray(image), list(size), TORCHVISION[kind]))
    np.testing.assert_allclose(found, rounded, atol=1.2)  # largest found: 1.08


@pytest.mark.parametrize("given", [(128, 64), (77, 41), (40, 90), (300, 101), (256, 128)])
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_padding_is_that_of_boxmot(given: tuple[int, int], channels: str) -> None:
    """Its resize_pad, on a BGR crop: aspect kept, the rest in ImageNet's mean colour, more of it below and right."""
    (height, width), (whole_height, whole_width), image = given, (256, 128), picture(*given)
    scale = min(whole_width / width, whole_height / height)
    inner = int(width * scale), int(height * scale)
    resized = cv2.resize(image[:, :, ::-1].astype(np.float32), inner, interpolation=cv2.INTER_LINEAR)
    top, left = (whole_height - inner[1]) // 2, (whole_width - inner[0]) // 2
    expected = cv2.copyMakeBorder(resized, top, whole_height - inner[1] - top, left, whole_width - inner[0] - left,
                                  cv2.BORDER_CONSTANT, value=(104, 116, 124))  # fmt: skip
    found = prepared(image, channels, size=(256, 128), antialias=False, pad=(124, 116, 104))
    np.testing.assert_allclose(found, expected if channels == "bgr" else expected[:, :, ::-1], atol=5e-3)


def test_normalisation_is_in_the_order_of_the_channels() -> None:
    image = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1).expand(1, 3, 4, 2)
    found = Preprocessing((4, 2), (0.3, 0.0, 0.0), (1.0, 2.0, 0.5), "bgr")(image)
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([0.0, 0.1, 0.2]))


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("pad", [None, (124, 116, 104)])
def test_gradients_are_those_of_finite_differences(kind: str, antialias: bool, pad) -> None:
    prepare = Preprocessing((7, 5), (0.1, 0.2, 0.3), (0.5, 1.0, 2.0), "bgr", kind, antialias, pad)
    inputs = torch.rand(2, 3, 9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    assert torch.autograd.gradcheck(prepare, inputs.requires_grad_(True))
