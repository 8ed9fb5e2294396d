"""A data set with one folder per identity."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reid_attack_bench.contracts import DataSet, Listing
from reid_attack_bench.data.readers.labels import label_key, numbers_of
from reid_attack_bench.data.readers.layout import (
    Labelled,
    files_below,
    find_base,
    image_list,
    why_no_image,
)
from reid_attack_bench.errors import BenchError

FOLDER = "folder"
_OUTSIDE = "images that are in no folder of an identity"
_NAMES = {"train": ("train",), "query": ("query", "probe"), "gallery": ("gallery",)}


@dataclass(frozen=True)
class Folders(DataSet):
    """One folder per identity: train/IDENTITY/…, query/IDENTITY/… and gallery/IDENTITY/….

    Names of identities are text or numbers, numbered in sorted order; the same in query and gallery is the same
    identity. Images in sub-folders are read too.

    Attributes:
        camera: "folder" if the folder below that of the identity is the camera (query/IDENTITY/CAMERA/…), or a regular
            expression with one group that finds the camera in a file's name, such as "_c([0-9]+)". By default cameras
            are unknown and no match is junk: queries count as taken by one camera, gallery images by another.
    """

    version = 1
    title = "one folder per identity"

    camera: str = ""

    def read(self, root: Path) -> Listing:
        pattern = self._pattern()
        base = root if (root / "probe").is_dir() else find_base(root, ["query", "gallery"])
        skipped: dict[str, list[str]] = {}
        found: dict[str, list[tuple[Path, str, str]]] = {}
        for part, names in _NAMES.items():
            folder = next((base / name for name in names if (base / name).is_dir()), None)
            if folder is None and part != "train":
                raise BenchError(f"{base / names[0]} is missing")
            found[part] = [] if folder is None else list(self._images(folder, root, pattern, skipped))
        every = [each for images in found.values() for each in images]
        identities = numbers_of(identity for _, identity, _ in every)
        _check_case(identities, base)
        cameras = numbers_of(camera for _, _, camera in every)
        splits = {
            part: image_list(
                (
                    Labelled(str(path), identities[identity], cameras[each] if self.camera else int(part == "gallery"))
                    for path, identity, each in images
                ),
                cameras_known=bool(self.camera),
            )
            for part, images in found.items()
        }
        return Listing(splits, skipped)

    def _pattern(self) -> re.Pattern[str] | None:
        if self.camera in ("", FOLDER):
            return None
        try:
            pattern = re.compile(self.camera)
        except re.error as error:
            raise BenchError(f"camera: '{self.camera}' is no regular expression ({error})") from error
        if pattern.groups != 1:
            raise BenchError(f"camera: '{self.camera}' needs one group, the camera, as in _c([0-9]+)")
        return pattern

    def _images(
        self, folder: Path, root: Path, pattern: re.Pattern[str] | None, skipped: dict[str, list[str]]
    ) -> Iterable[tuple[Path, str, str]]:
        """Path, identity and camera of the images of a split."""
        for below in files_below(folder):
            path, (identity, *inner) = folder / below, below.split("/")
            if reason := why_no_image(below) or ("" if inner else _OUTSIDE):
                skipped.setdefault(reason, []).append(path.relative_to(root).as_posix())
                continue
            if self.camera == FOLDER:
                if len(inner) < 2:
                    raise BenchError(
                        f"{path} is in no folder of a camera: expected {folder.name}/IDENTITY/CAMERA/IMAGE"
                    )
                yield path, identity, inner[0]
            elif pattern is None:
                yield path, identity, ""
            else:
                match = pattern.search(path.name)
                if match is None or not match[1]:
                    raise BenchError(f"{path}: its name has no camera as '{self.camera}' finds it: rename or remove it")
                yield path, identity, match[1]


def _check_case(identities: Iterable[str], base: Path) -> None:
    """Raise BenchError for two identities whose names differ by case alone."""
    first: dict[str, str] = {}
    for name in sorted(identities, key=label_key):
        other = first.setdefault(name.lower(), name)
        if other != name:
            raise BenchError(f"{base} has the identities {other} and {name}, which differ by case alone: rename one")
