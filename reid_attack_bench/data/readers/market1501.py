"""Market-1501 and DukeMTMC-reID, and any data set in the layout of Market-1501."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from reid_attack_bench.contracts import DataSet, Listing
from reid_attack_bench.data.readers.layout import Layout, read_layout

FOLDERS: Mapping[str, str] = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
"""Split → folder."""

PATTERN = r"(?P<identity>-?[0-9]+)_c(?P<camera>[0-9]+)"
"""Begin of a file name, as 0001_c2s1_000345_00.jpg."""

DUKE_WITHDRAWN = (
    "recorded and published outside the protocol that its university had approved, taken offline by its authors in "
    "2019, on NeurIPS's list of deprecated data sets"
)

MADE_OF_DUKE = f"made of DukeMTMC, which was {DUKE_WITHDRAWN}"

WITHDRAWN = dict.fromkeys(("p-dukemtmc", "dukemtmc-videoreid"), MADE_OF_DUKE)
"""Withdrawn data sets without a reader here, on which a model may have been trained → why."""

JUNK = {-1: "junk images, identity -1"}


def market_layout(*, junk: Mapping[int, str] = JUNK, more_gallery: tuple[str, ...] = ()) -> Layout:
    """The layout of Market-1501.

    Args:
        junk: see `Layout`.
        more_gallery: further folders of the gallery.
    """
    folders = {part: (folder, *(more_gallery if part == "gallery" else ())) for part, folder in FOLDERS.items()}
    return Layout(folders, PATTERN, "0001_c1s1_000001_00.jpg", junk=junk)


@dataclass(frozen=True)
class Market1501(DataSet):
    """Market-1501 (Zheng et al., ICCV 2015), and folders of images that are laid out and named as in it.

    Files IDENTITY_cCAMERA….SUFFIX in bounding_box_train, query and bounding_box_test. Identities and cameras have any
    number of digits, cameras are counted from 1. Junk (identity −1) is left out, distractors (0) are in the gallery.

    Attributes:
        market1501_500k: whether the 500,000 distractors in the folder images belong to the gallery.
    """

    version = 1
    title = "Market-1501"
    url = "http://www.liangzheng.org/Project/project_reid.html"
    folder = "market1501"
    images: ClassVar[Mapping[str, int]] = {"train": 12_936, "query": 3_368, "gallery": 15_913}

    market1501_500k: bool = False

    def read(self, root: Path) -> Listing:
        return read_layout(root, market_layout(more_gallery=("images",) if self.market1501_500k else ()))


@dataclass(frozen=True)
class DukeMTMCReID(DataSet):
    """DukeMTMC-reID (Zheng et al., ICCV 2017), withdrawn; laid out as Market-1501, without junk."""

    version = 1
    title = "DukeMTMC-reID"
    url = "https://github.com/layumi/DukeMTMC-reID_evaluation, which no longer offers the images"
    folder = "dukemtmc-reid"
    images: ClassVar[Mapping[str, int]] = {"train": 16_522, "query": 2_228, "gallery": 17_661}
    withdrawn = DUKE_WITHDRAWN

    def read(self, root: Path) -> Listing:
        return read_layout(root, market_layout(junk={}))


@dataclass(frozen=True)
class OccludedDuke(DukeMTMCReID):
    """Occluded-DukeMTMC (Miao et al., Pose-guided feature alignment for occluded person re-identification, ICCV 2019).

    Images of DukeMTMC-reID in other splits, so withdrawn as it is; its authors publish lists of names alone.
    """

    version = 1
    title = "Occluded-Duke"
    url = "https://github.com/lightas/Occluded-DukeMTMC-Dataset, lists of names without images"
    folder = "occluded-duke"
    images: ClassVar[Mapping[str, int]] = {"train": 15_618, "query": 2_210, "gallery": 17_661}
    withdrawn = MADE_OF_DUKE
