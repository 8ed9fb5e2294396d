"""CUHK03, extracted and split by torchreid."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from reid_attack_bench.contracts import DataSet, Listing, RankingProtocol
from reid_attack_bench.data.readers.layout import OUTSIDE
from reid_attack_bench.data.readers.torchreid import read_with_torchreid
from reid_attack_bench.errors import BenchError

_FILES = (
    "cuhk03_release/cuhk-03.mat",
    "cuhk03_new_protocol_config_detected.mat",
    "cuhk03_new_protocol_config_labeled.mat",
)


@dataclass(frozen=True)
class CUHK03(DataSet):
    """CUHK03 (Li et al., CVPR 2014): by default the 767/700 split (Zhong et al., CVPR 2017) of detected boxes.

    torchreid extracts the images next to the .mat files on first use, which requires h5py and imageio.

    Attributes:
        split_id: number of the classic split, 0 … 19.
        cuhk03_labeled: whether boxes are those drawn by hand.
        cuhk03_classic_split: whether the splits are the classic ones, which are ranked with a single gallery shot.
    """

    version = 1
    title = "CUHK03"
    url = (
        "http://www.ee.cuhk.edu.hk/~xgwang/CUHK_identification.html and, for the two config files of the 767/700 "
        "split, https://github.com/zhunzhong07/person-re-ranking"
    )
    folder = "cuhk03"
    images: ClassVar[Mapping[str, int]] = {"train": 7_365, "query": 1_400, "gallery": 5_332}

    split_id: int = 0
    cuhk03_labeled: bool = False
    cuhk03_classic_split: bool = False

    @property
    def protocol(self) -> RankingProtocol:
        return "cuhk03" if self.cuhk03_classic_split else "market1501"

    def read(self, root: Path) -> Listing:
        for name in _FILES:
            if not (root / name).exists():
                raise BenchError(f"{root / name} is missing")
        options = {
            "split_id": self.split_id,
            "cuhk03_labeled": self.cuhk03_labeled,
            "cuhk03_classic_split": self.cuhk03_classic_split,
        }
        lists = read_with_torchreid("cuhk03", "CUHK03", root, options)
        for path in (path for images in lists.values() for path in images.paths):
            if not path.startswith(f"{root}{os.sep}"):  # the split files hold absolute paths
                raise BenchError(
                    f"the splits in {root} refer to {path}, but the data set was moved: delete the files "
                    "splits_*.json there; they are written again"
                )
        other = root / ("images_detected" if self.cuhk03_labeled else "images_labeled")
        return Listing(lists, {OUTSIDE: [f"{other.name}/"]} if other.is_dir() else {})
