"""Lists of image files, decoded and resized."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from reid_attack_bench.contracts import ImageList
from reid_attack_bench.data.split import Progress
from reid_attack_bench.errors import BenchError

THREADS = 4  # Pillow releases the GIL while it decodes


def load_images(
    paths: Sequence[str],
    size: tuple[int, int],
    progress: Progress = lambda done, total, note: None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Decode images to RGB and resize them (bilinear, antialiased): uint8 N×H×W×3.

    Args:
        paths: N image files.
        size: (H, W) in pixels.
        progress: called as progress(done, total, note), every hundred images and at the end.
        out: uint8 N×H×W×3 to fill and return, such as a memory map (MSMT17 at 256×128 has 12 GB); None for a new array.

    Raises:
        BenchError: a file is missing or cannot be decoded; names its path.
    """
    height, width = size
    shape = (len(paths), height, width, 3)
    if out is None:
        out = np.empty(shape, np.uint8)
    elif out.shape != shape or out.dtype != np.uint8:
        raise BenchError(f"out must be uint8 {shape} for these {len(paths)} images, not {out.dtype} {out.shape}")
    with ThreadPoolExecutor(THREADS) as pool:
        # a batch at a time: map() would decode the whole list ahead of a slow `out`
        for start in range(0, len(paths), 100):
            batch = paths[start : start + 100]
            for index, pixels in enumerate(pool.map(_decode, batch, [(width, height)] * len(batch)), start):
                out[index] = pixels
            progress(start + len(batch), len(paths), "decoding")
    return out


def content_digest(lists: Mapping[str, ImageList]) -> str:
    """SHA-256 (hex) over the file names, labels and file contents of all splits, independent of the folder's path.

    Clothes labels are part of it where there are some.

    Raises:
        BenchError: a file cannot be read.
    """
    files = sorted({path for image_list in lists.values() for path in image_list.paths})
    base = os.path.commonpath([os.path.dirname(path) for path in files]) if files else ""
    with ThreadPoolExecutor(THREADS) as pool:
        contents = dict(zip(files, pool.map(file_digest_of, files), strict=True))
    digest = hashlib.sha256()
    for split in sorted(lists):
        image_list = lists[split]
        columns = [image_list.paths, image_list.identities, image_list.cameras]
        columns += [] if image_list.clothes is None else [image_list.clothes]
        for path, *labels in sorted(zip(*columns, strict=True)):
            name = Path(os.path.relpath(path, base)).as_posix()
            line = "\0".join([split, name, *map(str, labels), contents[path]])
            digest.update(f"{line}\n".encode(errors="surrogateescape"))  # names of files need not be UTF-8
    return digest.hexdigest()


def _decode(path: str, size: tuple[int, int]) -> np.ndarray:
    """One file as uint8 H×W×3; `size` is Pillow's (W, H)."""
    try:
        with Image.open(path) as file:
            if file.mode.startswith(("I", "F")):  # Pillow would cut off what does not fit into 8 bits
                raise ValueError("more than 8 bits per channel")
            image = file.convert("RGB")
    except FileNotFoundError as error:
        raise BenchError(
            f"{path} is missing, although the data set lists it: restore it from the archive of the data set"
        ) from error
    # the type that Pillow raises depends on the format and on what is corrupt
    except Exception as error:
        raise BenchError(
            f"{path} cannot be decoded ({error or type(error).__name__}): restore it from the archive of the data set"
        ) from error
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image)


def file_digest_of(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise BenchError(
            f"cannot read {path} ({error.strerror}): restore it from the archive of the data set"
        ) from error
