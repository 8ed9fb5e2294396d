"""CUHK-SYSU, cropped for re-identification."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from reid_attack_bench.contracts import DataSet, Listing
from reid_attack_bench.data.readers.layout import Labels, Layout, read_layout
from reid_attack_bench.errors import BenchError

_CROPPED = "cropped_images"
_CONVERTER = "https://github.com/TPCD/LifelongReID"


@dataclass(frozen=True)
class CUHKSYSU(DataSet):
    """CUHK-SYSU (Xiao et al., Joint detection and identification feature learning for person search, CVPR 2017).

    A data set for person search, read as people cropped it for lifelong re-identification (Pu et al., Lifelong person
    re-identification via adaptive knowledge accumulation, CVPR 2021): files IDENTITY_sFRAME_NUMBER_HARD.jpg in train,
    query and gallery, the latter two from the gallery of 50 frames. Cameras are unknown, so no match is junk: queries
    count as taken by one camera, gallery images by another.
    """

    version = 1
    title = "CUHK-SYSU"
    url = f"http://www.ee.cuhk.edu.hk/~xgwang/PS/dataset.html, cropped by {_CONVERTER}"
    folder = "cuhk-sysu"

    def read(self, root: Path) -> Listing:
        if (root / _CROPPED).is_dir() and not any(next(root.glob(f"{way}query"), None) for way in ("", "*/", "*/*/")):
            raise BenchError(
                f"{root} has {_CROPPED}, training images alone: no public list splits them into queries and gallery; "
                f"crop the frames with {_CONVERTER} (cuhksysu4reid), or list the images in a CSV file (layout: csv)"
            )
        layout = Layout(
            {part: (part,) for part in ("train", "query", "gallery")},
            r"(?P<part>train|query|gallery)/(?:.*/)?(?P<identity>[0-9]+)_s[0-9]+_[0-9]+",
            "00001_s00001_0000001_0.jpg",
            _labels,
            whole_path=True,
        )
        listing = read_layout(root, layout)
        splits = {part: replace(images, cameras_known=False) for part, images in listing.splits.items()}
        return replace(listing, splits=splits)


def _labels(match: re.Match[str]) -> Labels:
    return Labels(int(match["identity"]), int(match["part"] == "gallery"))
