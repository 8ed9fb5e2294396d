"""Rendered people published as data sets: PersonX and ClonedPerson."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from reid_attack_bench.contracts import DataSet, Listing
from reid_attack_bench.data.readers.layout import Labels, Layout, read_layout
from reid_attack_bench.data.readers.market1501 import market_layout

_CAMERAS_OF_A_SCENE = 100
"""Label of a camera is _CAMERAS_OF_A_SCENE times the scene, plus the camera."""


@dataclass(frozen=True)
class PersonX(DataSet):
    """PersonX (Sun and Zheng, Dissecting person re-identification from the viewpoint of viewpoint, CVPR 2019).

    Laid out and named as Market-1501; cameras are backgrounds and have the numbers of their files. The published
    numbers are those of the subset with six cameras (3, 4, 8, 10, 11 and 12), on which others report results.
    """

    version = 1
    title = "PersonX"
    url = "https://github.com/sxzrt/Instructions-of-the-PersonX-dataset"
    folder = "personx"
    images: ClassVar[Mapping[str, int]] = {"train": 9_840, "query": 5_136, "gallery": 30_816}
    synthetic = True

    def read(self, root: Path) -> Listing:
        return read_layout(root, market_layout())


@dataclass(frozen=True)
class ClonedPerson(DataSet):
    """ClonedPerson (Wang et al., Cloning outfits from real-world images to 3D characters, CVPR 2022).

    Files IDENTITY_sSCENE_cCAMERA_fFRAME.jpg in train, test/query and test/gallery. Cameras are counted from 0 in each
    scene.

    Attributes:
        cameras: "scene" to tell the cameras of different scenes apart; "number" to take the number alone, as the reader
            in the authors' repository does: a match that was taken in another scene by a camera of the same number is
            then junk.
    """

    version = 1
    title = "ClonedPerson"
    url = "https://github.com/Yanan-Wang-cs/ClonedPerson"
    folder = "clonedperson"
    synthetic = True

    cameras: Literal["scene", "number"] = "scene"

    def read(self, root: Path) -> Listing:
        folders = {"train": ("train",), "query": ("test/query",), "gallery": ("test/gallery",)}
        pattern = r"(?P<identity>[0-9]+)_s(?P<scene>[0-9]+)_c(?P<camera>[0-9]+)_f[0-9]+"
        return read_layout(root, Layout(folders, pattern, "700000_s02_c00_f023389.jpg", self._labels))

    def _labels(self, match: re.Match[str]) -> Labels:
        scene, camera = int(match["scene"]), int(match["camera"])
        if camera >= _CAMERAS_OF_A_SCENE:
            raise ValueError(f"it has camera {camera}, but a scene has fewer than {_CAMERAS_OF_A_SCENE}")
        label = _CAMERAS_OF_A_SCENE * scene + camera if self.cameras == "scene" else camera
        return Labels(int(match["identity"]), label)
