"""Data sets that are read from disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

RankingProtocol = Literal["market1501", "cuhk03", "clothes"]
"""Which gallery images are junk, and how many shots of an identity are ranked.

"market1501": same identity and camera are junk; "cuhk03": the same, single gallery shot; "clothes": same identity and
camera, and same identity and clothes, are junk (the cloth-changing setting of LTCC and PRCC).
"""


@dataclass(frozen=True)
class ImageList:
    """Image files of one split.

    A reader may list them in any order and number training identities as it likes. The bench sorts them by path, and
    numbers training identities 0 … K−1 in that order.

    Attributes:
        paths: N absolute paths.
        identities: int64 N, from 0; the same in query and gallery for one identity.
        cameras: int64 N, from 0.
        clothes: int64 N, the clothes of an identity; None for a data set without such labels.
        cameras_known: False if `cameras` only say which matches are junk, not who took an image.
    """

    paths: tuple[str, ...]
    identities: np.ndarray
    cameras: np.ndarray
    clothes: np.ndarray | None = None
    cameras_known: bool = True


@dataclass(frozen=True)
class Listing:
    """What a reader found in the folder of a data set.

    Attributes:
        splits: "query", "gallery" and, if the data set has one, "train".
        skipped: reason → files that were not read because of it, relative to the folder; every image that is in the
            folder, but in no split, is here. A name that ends in / stands for all of a folder.
    """

    splits: Mapping[str, ImageList]
    skipped: Mapping[str, Sequence[str]] = field(default_factory=dict)


class DataSet(ABC):
    """Base class of data sets that are read from disk. Subclass it as a frozen dataclass of options.

    Attributes:
        title: name in papers and reports.
        url: where to get it.
        folder: folder below --data-root where it is looked for; the name of the data set if empty.
        images: published number of images by split. A folder of this name with other numbers is not the published data
            set: no published value stands beside its results. Empty if no number is published.
        withdrawn: why its authors have withdrawn it; shown with every result on it. Empty for others.
        synthetic: True for rendered images; shown with every result on it.
        protocol: how it is ranked.
    """

    version: ClassVar[int | None] = None
    title: ClassVar[str] = ""
    url: ClassVar[str] = ""
    folder: ClassVar[str] = ""
    images: ClassVar[Mapping[str, int]] = {}
    withdrawn: ClassVar[str] = ""
    synthetic: ClassVar[bool] = False

    @property
    def protocol(self) -> RankingProtocol:
        return "market1501"

    @abstractmethod
    def read(self, root: Path) -> Listing:
        """List the images of the data set in `root`, its folder (for a list of images, its file); decode none.

        Raises:
            BenchError: a file or folder is missing, or has a name that cannot be read; names it.
        """
