"""Write a data set in the layout of Market-1501."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from reid_attack_bench.data.readers.torchreid import _MARKET, _MARKET_FOLDERS
from reid_attack_bench.errors import BenchError


class Labelled(Protocol):
    """Images with labels: uint8 RGB N×H×W×3, identities and cameras int N."""

    @property
    def images(self) -> np.ndarray: ...
    @property
    def identities(self) -> np.ndarray: ...
    @property
    def cameras(self) -> np.ndarray: ...


def write_market1501(splits: Mapping[str, Labelled], root: Path) -> Path:
    """Write a data set as Market-1501, for any tool that reads that; `read_real("market1501", root)` is one.

    The folders bounding_box_train, query and bounding_box_test of <root>/market1501/Market-1501-v15.09.15 hold files
    0001_c2s1_000345_00.jpg: identity, camera (from 1) and a running number. Readers of Market-1501 look
    for JPEG only, so the images lose what JPEG loses at quality 100 without chroma subsampling: a few
    steps of 1/255 per colour value, which is no format for adversarial images.

    Args:
        splits: "train", "query" and "gallery". Identities 0 … 1501 and cameras 0 … 5, which is all that the
            file names and their readers can express.
        root: the data root.

    Returns:
        The folder Market-1501-v15.09.15.

    Raises:
        BenchError: a split is missing or empty, a label is out of range, or the folder holds files already.
    """
    for split in _MARKET_FOLDERS:
        if split not in splits or len(splits[split].images) == 0:
            raise BenchError(f"cannot write Market-1501 without images to train, query and rank: '{split}' has none")
        for label, values, top in (
            ("identities", splits[split].identities, 1501),
            ("cameras", splits[split].cameras, 5),
        ):
            if len(values) != len(splits[split].images):
                raise BenchError(f"{split} has {len(splits[split].images)} images, but {len(values)} {label}")
            if values.min() < 0 or values.max() > top:
                raise BenchError(
                    f"Market-1501 can express {label} 0 … {top}, but those of {split} are "
                    f"{values.min()} … {values.max()}: renumber them, or export fewer"
                )
    folder = Path(root) / _MARKET
    if folder.exists() and any(folder.iterdir()):
        raise BenchError(f"{folder} is not empty: remove it, or export to another folder")
    for split, name in _MARKET_FOLDERS.items():
        (folder / name).mkdir(parents=True)
        labelled = splits[split]
        for index, (identity, camera) in enumerate(zip(labelled.identities, labelled.cameras, strict=True)):
            file = folder / name / f"{identity:04d}_c{camera + 1}s1_{index:06d}_00.jpg"
            Image.fromarray(np.asarray(labelled.images[index])).save(file, quality=100, subsampling=0)
    return folder
