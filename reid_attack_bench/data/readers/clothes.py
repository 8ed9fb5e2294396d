"""People who change their clothes: LTCC and PRCC."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from reid_attack_bench.contracts import DataSet, Listing, RankingProtocol
from reid_attack_bench.data.readers.layout import Labels, Layout, read_layout

Setting = Literal["cloth-changing", "standard"]


@dataclass(frozen=True)
class LTCC(DataSet):
    """LTCC (Qian et al., Long-term cloth-changing person re-identification, ACCV 2020).

    Files IDENTITY_CLOTHES_cCAMERA_….png in train, query and test; clothes are numbered for each identity.

    Attributes:
        setting: "cloth-changing": gallery images of the query's identity in the same clothes are junk, as are those of
            its identity and camera. "standard": only the latter. Training images are the same.
    """

    version = 1
    title = "LTCC"
    url = "https://naiq.github.io/LTCC_Perosn_ReID.html"
    folder = "LTCC_ReID"
    images: ClassVar[Mapping[str, int]] = {"train": 9_576, "query": 493, "gallery": 7_050}

    setting: Setting = "cloth-changing"

    @property
    def protocol(self) -> RankingProtocol:
        return _protocol(self.setting)

    def read(self, root: Path) -> Listing:
        folders = {"train": ("train",), "query": ("query",), "gallery": ("test",)}
        pattern = r"(?P<identity>[0-9]+)_(?P<clothes>[0-9]+)_c(?P<camera>[0-9]+)"
        return read_layout(root, Layout(folders, pattern, "000_1_c11_005215.png"))


@dataclass(frozen=True)
class PRCC(DataSet):
    """PRCC (Yang et al., Person re-identification by contour sketch under moderate clothing change, TPAMI 2021).

    Photographs in rgb/train/IDENTITY, named A…, B… or C… after the camera, and in rgb/test/CAMERA/IDENTITY. People wear
    the same clothes before cameras A and B, others before C. The gallery is A, with all its images, as in later work;
    at first, one image of each identity was ranked, drawn ten times. rgb/val is not read, nor are the sketches.

    Attributes:
        setting: "cloth-changing": queries are those of camera C; "standard": those of B.
    """

    version = 1
    title = "PRCC"
    url = "https://www.isee-ai.cn/~yangqize/clothing.html"
    folder = "prcc"
    images: ClassVar[Mapping[str, int]] = {"train": 17_896, "gallery": 3_384}

    setting: Setting = "cloth-changing"

    @property
    def protocol(self) -> RankingProtocol:
        return _protocol(self.setting)

    def read(self, root: Path) -> Listing:
        query = "C" if self.setting == "cloth-changing" else "B"
        layout = Layout(
            {"train": ("rgb/train",), "query": (f"rgb/test/{query}",), "gallery": ("rgb/test/A",)},
            r"rgb/(train/(?P<identity>[0-9]+)/(?P<camera>[ABC])|test/(?P<folder>[ABC])/(?P<person>[0-9]+)/)",
            "rgb/train/001/A_cropped_rgb001.jpg or rgb/test/A/002/cropped_rgb001.jpg",
            _prcc_labels,
            whole_path=True,
        )
        return read_layout(root, layout)


def _prcc_labels(match: re.Match[str]) -> Labels:
    camera = match["camera"] or match["folder"]
    return Labels(int(match["identity"] or match["person"]), "ABC".index(camera), int(camera == "C"))


def _protocol(setting: Setting) -> RankingProtocol:
    return "clothes" if setting == "cloth-changing" else "market1501"
