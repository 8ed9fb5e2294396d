"""Folders of images whose names hold identity and camera, as those of Market-1501."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reid_attack_bench.contracts import ImageList, Listing
from reid_attack_bench.errors import BenchError

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .jp2 .png .bmp .webp .tif .tiff .ppm .pgm .gif".split()  # noqa: SIM905  one a word
)
"""Suffixes of images, in lower case."""

HIDDEN, NO_IMAGE, UNNAMED = "hidden files", "files that are no images", "names without identity and camera"
OUTSIDE = "outside the folders of the layout"
"""Reasons in `Listing.skipped`. A name that ends in / stands for all of a folder."""

LARGEST = 2**62
"""Largest label: it fits into 64 bits."""

_SPLITS = ("train", "query", "gallery")


class Labelled(NamedTuple):
    """An image file and its labels; identity −1 and less stand for junk, cameras are from 0."""

    path: str
    identity: int
    camera: int
    clothes: int | None = None


class Labels(NamedTuple):
    """Labels in the name of a file."""

    identity: int
    camera: int
    clothes: int | None = None


def numbered(match: re.Match[str]) -> Labels:
    """Labels of a name with numbers in the groups identity, camera (from 1) and, if there is one, clothes.

    Raises:
        ValueError: camera 0.
    """
    groups = match.groupdict()
    if int(groups["camera"]) == 0:
        raise ValueError("it has camera 0, but cameras are counted from 1")
    clothes = groups.get("clothes")
    return Labels(int(groups["identity"]), int(groups["camera"]) - 1, None if clothes is None else int(clothes))


@dataclass(frozen=True)
class Layout:
    """Folders of images whose names hold their labels.

    Attributes:
        folders: split → its folders. Those of query and gallery must exist; without a folder "train" there is no
            training split. Images in sub-folders are read too.
        pattern: regular expression that the name of a file begins with, with the groups that `labels` reads.
        example: a name that fits it, for messages.
        labels: labels in a match; raises ValueError, with what is wrong, for impossible ones.
        junk: identity → why its images are left out. Other identities below 0 are impossible.
        whole_path: the pattern is for the path in the folder of the data set ("test/A/0001/17.jpg"), not for the name.
    """

    folders: Mapping[str, tuple[str, ...]]
    pattern: str
    example: str
    labels: Callable[[re.Match[str]], Labels] = numbered
    junk: Mapping[int, str] = field(default_factory=dict)
    whole_path: bool = False


def read_layout(root: Path, layout: Layout) -> Listing:
    """The images below `root`, or below the one folder in it, at most two levels deeper, that has this layout.

    Raises:
        BenchError: a folder is missing, a name is impossible, two files of a split have one name, or most names do not
            fit the pattern.
    """
    base = find_base(root, [layout.folders[part][0] for part in ("query", "gallery")])
    skipped: dict[str, list[str]] = {}
    splits = {}
    for part in _SPLITS:
        folders = [base / folder for folder in layout.folders.get(part, ())]
        if part == "train" and not any(folder.is_dir() for folder in folders):
            continue
        found = [each for folder in folders for each in _read_folder(folder, base, root, layout, skipped)]
        splits[part] = image_list(found)
    used = [folder for folders in layout.folders.values() for folder in folders]
    if outside := list(_outside(root, base, used)):
        skipped[OUTSIDE] = outside
    return Listing(splits, skipped)


def image_list(images: Iterable[Labelled], cameras_known: bool = True) -> ImageList:
    """Images as an `ImageList`, sorted by path."""
    rows = sorted((each._replace(path=os.path.normpath(each.path)) for each in images), key=lambda each: each.path)
    clothes = [each.clothes for each in rows if each.clothes is not None]
    return ImageList(
        paths=tuple(each.path for each in rows),
        identities=np.array([each.identity for each in rows], np.int64),
        cameras=np.array([each.camera for each in rows], np.int64),
        clothes=np.array(clothes, np.int64) if clothes and len(clothes) == len(rows) else None,
        cameras_known=cameras_known,
    )


def find_base(root: Path, needed: Iterable[str]) -> Path:
    """The folder with the entries `needed`: `root`, or the only one below it, at most two levels deeper.

    Raises:
        BenchError: there is none, or there are several; names what is there.
    """
    names = list(needed)
    level = [root]
    for _ in range(3):
        found = [folder for folder in level if all((folder / name).exists() for name in names)]
        if len(found) > 1:
            # a folder and its copy: whichever is right is not for us to guess
            raise BenchError(
                f"{root} has {' and '.join(names)} in several folders ({_some(found, root)}): name one as root"
            )
        if found:
            return found[0]
        level = [each for folder in level for each in _visible_folders(folder)]
    if not root.exists():
        raise BenchError(f"{root} is missing")
    there = _some(_visible_folders(root), root) or "no folder"
    raise BenchError(f"{root} has no {' and '.join(names)}, only {there}")


def files_below(folder: Path) -> Iterator[str]:
    """Paths of all files below `folder`, relative to it, sorted; links to folders end in / and are not followed."""
    for place, folders, names in os.walk(folder, onerror=_unreadable):
        folders.sort()
        below = "" if place == str(folder) else f"{Path(os.path.relpath(place, folder)).as_posix()}/"
        yield from (f"{below}{name}/" for name in folders if os.path.islink(os.path.join(place, name)))
        yield from (f"{below}{name}" for name in sorted(names))


def lines_of(file: Path) -> list[str]:
    """Lines of a text file in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Raises:
        BenchError: it is neither, or cannot be read.
    """
    try:
        content = file.read_bytes()
        encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        return content.decode(encoding).splitlines()
    except (OSError, UnicodeError) as error:
        raise BenchError(f"{file} cannot be read as UTF-8 text ({error})") from error


def _unreadable(error: OSError) -> None:
    raise BenchError(f"{error.filename} cannot be read ({error.strerror}): check its permissions") from error


def why_no_image(path: str) -> str:
    """Why a file is not read as an image, by its path relative to the folder of the data set; empty for an image."""
    if any(part.startswith(".") or part == "__MACOSX" for part in path.split("/")):
        return HIDDEN
    return "" if os.path.splitext(path)[1].lower() in SUFFIXES else NO_IMAGE


def _read_folder(folder: Path, base: Path, root: Path, layout: Layout, skipped: dict[str, list[str]]) -> list[Labelled]:
    if not folder.is_dir():
        raise BenchError(f"{folder} is missing")
    pattern = re.compile(layout.pattern)
    found: list[Labelled] = []
    unnamed: list[str] = []
    junk = 0
    seen: dict[str, str] = {}
    for below in files_below(folder):
        path = folder / below
        shown = path.relative_to(root).as_posix()
        if reason := why_no_image(below):
            skipped.setdefault(reason, []).append(shown)
            continue
        name = path.relative_to(base).as_posix() if layout.whole_path else path.name
        match = pattern.match(name)
        if match is None:
            unnamed.append(shown)
            continue
        labels = _labels(match, path, layout)
        first = seen.setdefault(os.path.splitext(name)[0].lower(), shown)
        if first != shown:
            raise BenchError(f"{path} and {root / first} have one name: remove or rename one")
        if labels.identity in layout.junk:
            junk += 1
            skipped.setdefault(layout.junk[labels.identity], []).append(shown)
        else:
            found.append(Labelled(str(path), *labels))
    if len(unnamed) > len(found) + junk:
        raise BenchError(
            f"{len(unnamed)} of the {len(unnamed) + len(found) + junk} images in {folder} have no identity and camera "
            f"in their names (the first: {root / unnamed[0]}): name them as {layout.example}, or list them in a CSV "
            "file (layout: csv)"
        )
    if unnamed:
        skipped.setdefault(UNNAMED, []).extend(unnamed)
    return found


def _labels(match: re.Match[str], path: Path, layout: Layout) -> Labels:
    try:
        labels = layout.labels(match)
        if labels.identity < 0 and labels.identity not in layout.junk:
            raise ValueError(f"it has identity {labels.identity}")
        if max(labels.identity, labels.camera, labels.clothes or 0) > LARGEST:
            raise ValueError("it has a number that is too large")
    except ValueError as error:
        raise BenchError(f"{path}: {error}: a name must be as {layout.example}; rename or remove the file") from error
    return labels


def _outside(root: Path, base: Path, used: Iterable[str]) -> Iterator[str]:
    """Folders and images beside those that were read, from `root` down to `base`."""
    taken = {base / folder for folder in used}
    between = {base, *(each for folder in taken for each in folder.parents if base in each.parents)}
    chain = sorted({*between, *(each for each in base.parents if each == root or root in each.parents)})
    for place in chain:
        for path in sorted(place.iterdir()):
            name = path.relative_to(root).as_posix()
            if path in taken or path in chain or why_no_image(path.name) == HIDDEN:
                continue
            if path.is_dir():
                yield f"{name}/"
            elif not why_no_image(path.name):
                yield name


def _visible_folders(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if each.is_dir() and why_no_image(each.name) != HIDDEN)
    except OSError:
        return []


def _some(folders: Iterable[Path], root: Path) -> str:
    names = [f"{each.relative_to(root).as_posix()}/" if each != root else "./" for each in folders]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
