"""Write a data set in the folder layout of Market-1501."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from reid_attack_bench.data.readers.market1501 import FOLDERS
from reid_attack_bench.errors import BenchError


class Labelled(Protocol):
    """Images with labels: uint8 RGB N×H×W×3, identities and cameras int N."""

    @property
    def images(self) -> np.ndarray: ...
    @property
    def identities(self) -> np.ndarray: ...
    @property
    def cameras(self) -> np.ndarray: ...


MARKET = "market1501/Market-1501-v15.09.15"


def write_market1501(splits: Mapping[str, Labelled], root: Path) -> Path:
    """Write a data set as Market-1501, to be read with `root` as data root or by any other tool.

    Files in bounding_box_train, query and bounding_box_test below <root>/market1501/Market-1501-v15.09.15 are named
    IDENTITY_cCAMERAs1_NUMBER_00.jpg, with cameras counted from 1. Quality 100 without chroma subsampling still changes
    colour values by a few 1/255: do not store adversarial images this way. torchreid's own reader takes identities
    0 … 1501 and cameras 1 … 6 only; ours takes all.

    Args:
        splits: "query", "gallery" and, if there is one, "train".
        root: the data root.

    Returns:
        The folder Market-1501-v15.09.15.

    Raises:
        BenchError: a split is missing or empty, a label is negative, or the folder is not empty.
    """
    written = {part: name for part, name in FOLDERS.items() if part != "train" or part in splits}
    for split in written:
        if split not in splits or len(splits[split].images) == 0:
            raise BenchError(f"cannot write Market-1501: split '{split}' has no images")
        for label, values in (("identities", splits[split].identities), ("cameras", splits[split].cameras)):
            if len(values) != len(splits[split].images):
                raise BenchError(f"{split} has {len(splits[split].images)} images, but {len(values)} {label}")
            if values.min() < 0:
                raise BenchError(f"{label} of {split} must be at least 0, but one is {values.min()}: renumber them")
    folder = Path(root) / MARKET
    if folder.exists() and any(folder.iterdir()):
        raise BenchError(f"{folder} is not empty: remove it, or export to another folder")
    for split, name in written.items():
        (folder / name).mkdir(parents=True)
        labelled = splits[split]
        for index, (identity, camera) in enumerate(zip(labelled.identities, labelled.cameras, strict=True)):
            file = folder / name / f"{identity:04d}_c{camera + 1}s1_{index:06d}_00.jpg"
            Image.fromarray(np.asarray(labelled.images[index])).save(file, quality=100, subsampling=0)
    return folder
