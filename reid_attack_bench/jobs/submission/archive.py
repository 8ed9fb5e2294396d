"""The archive of a submission, read as what a stranger made: its names, kinds and sizes have limits.

An archive holds FILES, and below store/ the images of crafts and the weights of victims. Nothing else is accepted, and
nothing is unpacked but by name, to a place that the reader chooses.
"""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reid_attack_bench.errors import BenchError

CARD, MANIFEST, MATRIX, CLEAN, BOARD = "card.yaml", "manifest.json", "matrix.csv", "clean.csv", "leaderboard.csv"

FILES = {CARD: 2**16, MANIFEST: 2**26, MATRIX: 2**26, CLEAN: 2**24, BOARD: 2**24}
"""Files of every submission, and their largest size in bytes."""

STORED = {
    "craft": ("manifest.json", "query.npy", "gallery.npy", "targets.safetensors"),
    "victim": ("manifest.json", "card.json", "weights.safetensors"),
}
"""Kind of step → files of it that a submission may hold."""

ENTRIES = 20_000
"""Largest number of files in a submission."""

SMALL = 2**20
"""Largest size in bytes of a manifest or card in the store."""

RATIO = 250
"""Largest ratio by which a file of more than a MiB may be compressed; images compress by less than ten."""

TOTAL = 2**38
"""Largest size in bytes of all that is unpacked, 256 GiB."""

_BLOCK = 2**20
_END = struct.Struct("<4s4H2LH")


def place(kind: str, key: str, name: str) -> str:
    """Name in the archive of a file of a stored step."""
    return f"store/{kind}/{key}/{name}"


@dataclass(frozen=True)
class Archive:
    """An open submission; `path` names it in messages, `sizes` has the unpacked size of each of its files."""

    path: Path
    sizes: dict[str, int]
    _content: zipfile.ZipFile

    def stored(self) -> set[tuple[str, str]]:
        """(kind, key) of the steps below store/."""
        return {(parts[1], parts[2]) for name in self.sizes if len(parts := name.split("/")) == 4}

    def read(self, name: str) -> bytes:
        """The content of a small file.

        Raises:
            BenchError: there is none of that name, or it is damaged.
        """
        if name not in self.sizes:
            raise BenchError(f"{self.path} is not a submission: it has no {name}")
        with self._readable():
            return self._content.read(name)

    def extract(self, name: str, target: Path, limit: int) -> None:
        """Write a file of at most `limit` bytes to `target`.

        Raises:
            BenchError: it is missing, damaged, or larger.
        """
        size = self.sizes.get(name)
        if size is None:
            raise BenchError(f"{self.path} lacks {name}")
        if size > limit:
            raise BenchError(f"{self.path}: {name} has {size:,} bytes, more than the {limit:,} that belong there")
        with self._readable(), self._content.open(name) as source, target.open("wb") as out:
            while block := source.read(_BLOCK):
                out.write(block)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        with _readable(self.path):
            yield


@contextmanager
def opened_archive(path: Path) -> Iterator[Archive]:
    """Open a submission and check what it holds; nothing is unpacked.

    Raises:
        BenchError: no such file, no submission, or one outside the limits.
    """
    if not path.exists():
        raise BenchError(f"submission {path} does not exist")
    with _readable(path):
        _check_ends(path)
        content = zipfile.ZipFile(path)
    with content:
        found = content.infolist()
        if len(found) > ENTRIES:  # by a second list, for large archives
            raise BenchError(f"{path} lists {len(found):,} files, and a submission has at most {ENTRIES:,}")
        sizes: dict[str, int] = {}
        seen: set[str] = set()
        for entry in found:
            _check(path, entry)
            if entry.filename.casefold() in seen:
                raise BenchError(f"{path} has {_shown(entry.filename)} twice")
            seen.add(entry.filename.casefold())
            sizes[entry.filename] = entry.file_size
        if sum(sizes.values()) > TOTAL:
            raise BenchError(f"{path} unpacks to {sum(sizes.values()):,} bytes, more than {TOTAL:,}")
        for name in FILES:
            if name not in sizes:
                raise BenchError(f"{path} is not a submission: it has no {name}")
        yield Archive(path, sizes, content)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except BenchError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, NotImplementedError) as error:
        raise BenchError(f"{path} is not a readable submission: {error}") from error


def _check_ends(path: Path) -> None:
    """Refuse, before its list is read, an archive that is something else too or that lists too many files."""
    with path.open("rb") as stream:
        if stream.read(4) != b"PK\3\4":
            raise BenchError(f"{path} is not a readable submission: it does not begin as a zip archive does")
        size = stream.seek(0, 2)
        if size < _END.size:
            raise zipfile.BadZipFile("it is cut short")
        stream.seek(-_END.size, 2)
        mark, _, _, _, count, listed, _, comment = _END.unpack(stream.read(_END.size))
    if mark != b"PK\5\6" or comment:
        raise BenchError(f"{path} is not a readable submission: it does not end as a zip archive does")
    if count > ENTRIES or listed > 512 * ENTRIES:
        raise BenchError(f"{path} lists {count:,} files in {listed:,} bytes, and a submission has at most {ENTRIES:,}")


def _check(path: Path, entry: zipfile.ZipInfo) -> None:
    name, size = entry.filename, entry.file_size
    limit = _limit(name)
    if limit is None or entry.orig_filename != name:
        raise BenchError(f"{path} holds {_shown(name)}, which is no part of a submission")
    mode = stat.S_IFMT(entry.external_attr >> 16)
    if mode not in (0, stat.S_IFREG):
        raise BenchError(f"{path}: {name} is a link or a device, not a file")
    if entry.flag_bits & 1:
        raise BenchError(f"{path}: {name} is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BenchError(f"{path}: {name} is compressed by another method than deflate")
    if size > limit:
        raise BenchError(f"{path}: {name} unpacks to {size:,} bytes, more than {limit:,}")
    if size > _BLOCK and size > RATIO * max(1, entry.compress_size):
        raise BenchError(f"{path}: {name} unpacks to {size / max(1, entry.compress_size):,.0f} times its size")


def _limit(name: str) -> int | None:
    """Largest size of the file `name`; None for one that no submission has."""
    if name in FILES:
        return FILES[name]
    found = re.fullmatch(r"store/(craft|victim)/[0-9a-f]{32}/([a-z]+\.[a-z]+)", name)
    if not found or found[2] not in STORED[found[1]]:
        return None
    return SMALL if found[2].endswith(".json") else TOTAL


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:77] + "…")
