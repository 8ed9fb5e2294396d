"""Image files of a user's folder: which there are, and their pixels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from reid_attack_bench.data.readers.layout import why_no_image
from reid_attack_bench.errors import BenchError
from reid_attack_bench.text import one_line

LARGEST = 2**25
"""Pixels of an image. Attacks hold several copies of it in float32, 0.4 GB each at this size."""

_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Orientation in EXIF → what undoes it; from 5 on, height and width change places."""

_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Pictures:
    """What a folder holds.

    Attributes:
        paths: its image files, by name.
        skipped: reason → names of what is not read.
    """

    paths: list[Path]
    skipped: dict[str, list[str]]


def find_pictures(folder: Path) -> Pictures:
    """The images in a folder, not in folders below it.

    Raises:
        BenchError: it holds none.
    """
    if not folder.is_dir():
        raise BenchError(f"--images {folder} is not a folder")
    found = Pictures([], {})
    for path in sorted(folder.iterdir()):
        name = f"{path.name}/" if path.is_dir() else path.name
        other = "folders" if path.is_dir() else "" if path.is_file() else "broken links and the like"
        reason = other or why_no_image(path.name)
        if reason:
            found.skipped.setdefault(reason, []).append(name)
        else:
            found.paths.append(path)
    if not found.paths:
        there = "; ".join(in_words(found.skipped)) or "nothing"
        raise BenchError(f"--images {folder} holds no image, only {there}")
    return found


def in_words(skipped: dict[str, list[str]], named: int = 3) -> Iterator[str]:
    """Each reason with its number of files and the first of them: "hidden files (2: .a.png, ._b.png)"."""
    for reason, names in skipped.items():
        yield f"{reason} ({len(names):,}: {', '.join(names[:named])}{' …' if len(names) > named else ''})"


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) as `read_picture` returns them, without decoding the pixels.

    Raises:
        BenchError: no image that can be attacked; names the file.
    """
    with _opened(path) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def read_picture(path: Path) -> np.ndarray:
    """uint8 RGB H×W×3, after the orientation in its EXIF is applied.

    Raises:
        BenchError: it cannot be decoded; names the file.
    """
    with _opened(path) as image:
        try:
            turned = _TURNED.get(_orientation(image))
            pixels = image.convert("RGB")
            return np.array(pixels if turned is None else pixels.transpose(turned))
        # the type that Pillow raises depends on the format and on what is damaged
        except Exception as error:
            raise BenchError(f"{path} cannot be decoded ({_why(error)}): replace or remove it") from error


def _opened(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large images are refused below, damaged EXIF does not matter
            image = Image.open(path)
    except Image.UnidentifiedImageError as error:
        raise BenchError(f"{path} is not a readable image: replace or remove it") from error
    except Exception as error:  # as above
        raise BenchError(f"{path} is not a readable image ({_why(error)}): replace or remove it") from error
    wrong = ""
    if image.mode.startswith(("I", "F")):
        wrong = "has more than 8 bits per channel: convert it to 8 bits first"
    elif image.width * image.height > LARGEST:
        wrong = f"has {image.width * image.height:,} pixels, more than {LARGEST:,}: crop it, or make it smaller"
    if wrong:
        image.close()
        raise BenchError(f"{path} {wrong}")
    return image


def _orientation(image: Image.Image) -> int:
    """1 to 8; damaged EXIF, or none, turns no image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = image.getexif().get(_ORIENTATION)
    except Exception:
        return 1
    return found if isinstance(found, int) and found in _TURNED else 1


def _why(error: Exception) -> str:
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return one_line(words) or type(error).__name__
