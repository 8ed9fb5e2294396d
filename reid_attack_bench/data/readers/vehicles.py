"""Vehicles: VeRi-776."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from reid_attack_bench.contracts import DataSet, Listing
from reid_attack_bench.data.readers.layout import Layout, read_layout
from reid_attack_bench.data.readers.market1501 import JUNK, PATTERN


@dataclass(frozen=True)
class VeRi776(DataSet):
    """VeRi-776 (Liu et al., A deep learning-based approach to progressive vehicle re-identification, ECCV 2016).

    Vehicles, not people: models are commonly given square images, so set image_size: [256, 256]. Files
    IDENTITY_cCAMERA_….jpg in image_train, image_query and image_test. Results are image to image: image to track, the
    protocol of its authors, is not computed.
    """

    version = 1
    title = "VeRi-776"
    url = "https://vehiclereid.github.io/VeRi/, on request"
    folder = "VeRi"
    images: ClassVar[Mapping[str, int]] = {"train": 37_778, "query": 1_678, "gallery": 11_579}

    def read(self, root: Path) -> Listing:
        folders = {"train": ("image_train",), "query": ("image_query",), "gallery": ("image_test",)}
        return read_layout(root, Layout(folders, PATTERN, "0001_c001_00016450_0.jpg", junk=JUNK))
