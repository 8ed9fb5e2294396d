"""Files that an exported model consists of, beside the one that is named."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

_LOCATION = b"\n\x08location\x12"
"""Start of ONNX's `StringStringEntryProto(key="location", value=…)`, which names a file of external weights."""


def companions(path: Path) -> tuple[Path, ...]:
    """Existing files that the model at `path` reads: of OpenVINO's X.xml X.bin, of ONNX the weights that it names."""
    named = [path.with_name(f"{path.name}.data")]  # most programs call ONNX's weights so; first, for the keys of before
    if path.suffix == ".xml":
        named.append(path.with_suffix(".bin"))
    else:
        named += sorted(path.parent / location for location in set(external_locations(path)))
    return tuple(part for part in dict.fromkeys(named) if os.path.isfile(part))  # of a strange name too


def external_locations(path: Path) -> Iterator[str]:
    """Every file name under `external_data` in an ONNX model, relative to its folder.

    Read from the bytes, so that keys do not depend on whether the package onnx is installed. Of any other file nothing
    is found.
    """
    if not path.stat().st_size:
        return
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        place = content.find(_LOCATION)
        while place >= 0:
            size, start = _varint(content, place + len(_LOCATION))
            with contextlib.suppress(UnicodeDecodeError):  # weights that look like it by chance
                yield content[start : start + size].decode()
            place = content.find(_LOCATION, place + 1)


def _varint(content: mmap.mmap, place: int) -> tuple[int, int]:
    """A number of protobuf, and the place behind it."""
    value = shift = 0
    while place < len(content):
        byte = content[place]
        value, shift, place = value | (byte & 0x7F) << shift, shift + 7, place + 1
        if byte < 0x80:
            break
    return value, place
