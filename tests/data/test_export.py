"""Export in the layout of Market-1501."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid_attack_bench.data.readers.content import read_listing
from reid_attack_bench.data.readers.export import write_market1501
from reid_attack_bench.data.readers.files import load_images
from reid_attack_bench.data.readers.market1501 import Market1501
from reid_attack_bench.errors import BenchError


@dataclass(frozen=True)
class Split:
    images: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray


def split(seed: int, count: int, identities: int, cameras: int = 6) -> Split:
    rng = np.random.default_rng(seed)
    smooth = rng.integers(0, 256, (count, 4, 2, 3), dtype=np.uint8)
    images = np.stack([np.asarray(Image.fromarray(image).resize((16, 32))) for image in smooth])
    return Split(images, np.arange(count) % identities, rng.integers(0, cameras, count))


def test_an_export_reads_back(tmp_path: Path) -> None:
    splits = {"train": split(0, 12, 5), "query": split(1, 4, 4), "gallery": split(2, 9, 4, cameras=120)}
    splits["query"] = replace(splits["query"], identities=splits["query"].identities + 70_000)
    folder = write_market1501(splits, tmp_path)
    assert folder == tmp_path / "market1501" / "Market-1501-v15.09.15"
    lists = read_listing(Market1501(), tmp_path / "market1501").splits
    for name, written in splits.items():
        read = lists[name]
        order = [int(Path(path).stem.split("_")[2]) for path in read.paths]  # the running number
        assert sorted(order) == list(range(len(written.images)))
        np.testing.assert_array_equal(read.identities, written.identities[order])
        np.testing.assert_array_equal(read.cameras, written.cameras[order])
        difference = load_images(read.paths, (32, 16)).astype(int) - written.images[order]
        assert np.abs(difference).max() <= 6  # 4:2:0 or a lower quality would be far more
        assert np.abs(difference).mean() <= 1
    with pytest.raises(BenchError, match="not empty"):
        write_market1501(splits, tmp_path)


def test_an_export_refuses_what_market1501_cannot_express(tmp_path: Path) -> None:
    good = {"train": split(0, 6, 3), "query": split(1, 2, 2), "gallery": split(2, 4, 2)}
    for broken, message in (
        (replace(good["gallery"], identities=np.array([-1, 1, 2, 3])), "identities of gallery must be at least 0"),
        (replace(good["gallery"], cameras=np.array([-1, 1, 2, 6])), "cameras of gallery must be at least 0"),
        (replace(good["gallery"], cameras=np.array([0, 1])), "4 images, but 2 cameras"),
        (replace(good["gallery"], images=good["gallery"].images[:0]), "'gallery' has no images"),
    ):
        with pytest.raises(BenchError, match=message):
            write_market1501({**good, "gallery": broken}, tmp_path)
    with pytest.raises(BenchError, match="'query' has no images"):
        write_market1501({"train": good["train"], "gallery": good["gallery"]}, tmp_path)
    assert list(tmp_path.iterdir()) == []
