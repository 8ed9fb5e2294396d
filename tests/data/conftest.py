"""Data sets in miniature: random images, named and laid out as in a published data set."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid_attack_bench.contracts import ImageList

MARKET_FILES = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0300_c6s1_000001_00.jpg", "0007_c3s3_077419_03.jpg",
                           "0002_c4s1_000001_00.jpg"],
    "query": ["0001_c1s1_001051_00.jpg"],
    "bounding_box_test": ["0001_c2s1_001976_01.jpg", "0000_c5s1_000151_01.jpg", "-1_c3s2_068767_04.jpg"],
}  # fmt: skip


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (16, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def pictures(folder: Path, names: Iterable[str]) -> Path:
    for seed, name in enumerate(names):
        picture(folder / name, seed)
    return folder


def people(identities: Iterable[int], cameras: Iterable[int], suffix: str = "jpg") -> list[str]:
    """Names in the layout of Market-1501: a query from the first camera of each person, a gallery image from all."""
    cameras = list(cameras)
    names, number = [], 0
    for identity in identities:
        for part in ("query", *["bounding_box_test", "bounding_box_train"] * len(cameras)):
            camera = cameras[0] if part == "query" else cameras[number % len(cameras)]
            number += part == "bounding_box_train"
            shown = identity + 100 * (part == "bounding_box_train")
            names.append(f"{part}/{shown:04d}_c{camera}s1_{len(names):06d}_00.{suffix}")
    return names


def described(images: ImageList) -> list[tuple[str, int, int]]:
    names = [Path(path).name for path in images.paths]
    return list(zip(names, images.identities.tolist(), images.cameras.tolist(), strict=True))


@pytest.fixture
def market(tmp_path: Path) -> Path:
    """A data root with market1501/Market-1501-v15.09.15."""
    names = [f"{folder}/{name}" for folder, listed in MARKET_FILES.items() for name in listed]
    pictures(tmp_path / "market1501" / "Market-1501-v15.09.15", names)
    return tmp_path
