"""MSMT17, split by torchreid; its lists may have blank lines, tabs, several spaces and the line ends of any system."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from reid_attack_bench.contracts import DataSet, Listing
from reid_attack_bench.data.readers.layout import LARGEST, files_below, find_base, lines_of, why_no_image
from reid_attack_bench.data.readers.torchreid import read_with_torchreid
from reid_attack_bench.errors import BenchError

VERSIONS: Mapping[str, tuple[str, str]] = {
    "MSMT17_V1": ("train", "test"),
    "MSMT17_V2": ("mask_train_v2", "mask_test_v2"),
}
"""Folder → its folders of images."""

LISTS = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt")

_LINE = re.compile(r"(?P<path>\S.*?)\s+(?P<identity>[0-9]+)")
_NAME = re.compile(r"[^_]*_[^_]*_(?P<camera>[0-9]+)(_|\.)")


@dataclass(frozen=True)
class MSMT17(DataSet):
    """MSMT17 (Wei et al., CVPR 2018). Trains on list_train.txt without list_val.txt, as published results do."""

    version = 1
    title = "MSMT17"
    url = "http://www.pkuvmc.com/dataset.html, on request"
    folder = "msmt17"
    images: ClassVar[Mapping[str, int]] = {"train": 30_248, "query": 11_659, "gallery": 82_161}

    def read(self, root: Path) -> Listing:
        base = _base(root)
        for name in (*VERSIONS[base.name], *LISTS):
            if not (base / name).exists():
                raise BenchError(f"{base / name} is missing")
        splits = read_with_torchreid("msmt17", "MSMT17", base.parent, methods={"process_dir": _listed})
        used = {path for images in splits.values() for path in images.paths}
        validation = {path for path, _, _ in _listed(None, str(base / VERSIONS[base.name][0]), str(base / LISTS[1]))}
        skipped: dict[str, list[str]] = {}
        for folder in VERSIONS[base.name]:
            for below in files_below(base / folder):
                path = str(base / folder / below)
                if path not in used:
                    reason = "images of list_val.txt" if path in validation else why_no_image(below)
                    shown = Path(path).relative_to(root).as_posix()
                    skipped.setdefault(reason or "images that no list names", []).append(shown)
        return Listing(splits, skipped)


def _base(root: Path) -> Path:
    """The folder MSMT17_V1 or MSMT17_V2: `root`, or in it. V1 comes first, as in torchreid."""
    for version in VERSIONS:
        for folder in (root, root / version):
            if folder.name == version and folder.is_dir():
                return folder
    base = find_base(root, LISTS[:1])
    if base.name not in VERSIONS:
        raise BenchError(f"{base} must be called {' or '.join(VERSIONS)}: rename it")
    return base


def _listed(_: Any, folder: str, file: str) -> list[tuple[str, int, int]]:
    """Path, identity and camera (from 0) of each line of a list; stands for torchreid's process_dir.

    Raises:
        BenchError: a line that is not "PATH IDENTITY" with the camera third in the file's name; names file and line.
    """
    found = []
    for number, line in enumerate(lines_of(Path(file)), 1):
        text = line.strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        name = _NAME.match(match["path"].replace("\\", "/").rpartition("/")[2]) if match else None
        numbers = [int(match["identity"]), int(name["camera"])] if match and name else []
        if match is None or name is None or numbers[1] == 0 or max(numbers) > LARGEST:
            raise BenchError(
                f"{file}, line {number}: '{text[:80]}' is not a path and an identity, as "
                "0000/0000_000_01_0303morning_0015_0.jpg 0 (camera 01)"
            )
        path = os.path.normpath(os.path.join(folder, match["path"].replace("\\", "/")))
        found.append((path, int(match["identity"]), int(name["camera"]) - 1))
    return found
