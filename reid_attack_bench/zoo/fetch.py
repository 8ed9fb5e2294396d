"""Put the file of a zoo model into the weights folder: download it, or take it from elsewhere; check it first."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import file_digest
from reid_attack_bench.zoo import download
from reid_attack_bench.zoo.catalogue import ZooEntry
from reid_attack_bench.zoo.folder import (
    Record,
    find_file,
    read_records,
    records_file,
    stem_of,
    weights_folder,
    write_record,
)
from reid_attack_bench.zoo.formats import suffix_of

Downloader = Callable[[str, Path, download.Progress], None]
"""Writes what is at an address, or has an id on Google Drive, into a partial file."""


@dataclass(frozen=True)
class Fetched:
    """A file of weights in its place.

    Attributes:
        path: of the file.
        sha256: of its content.
        is_new: False if it was there before.
    """

    path: Path
    sha256: str
    is_new: bool


# size: two downloaders stand for the network in tests
def fetch(
    entry: ZooEntry,
    *,
    folder: Path | None = None,
    source: Path | None = None,
    progress: download.Progress = lambda done, total, note: None,
    over_http: Downloader = download.download,
    from_drive: Downloader = download.download_from_drive,
) -> Fetched:
    """Get the file of a model, unless it is there; move it to its place only when it has passed all checks.

    Args:
        folder: default: the weights folder.
        source: folder of files that were fetched by other means; nothing is then downloaded.

    Raises:
        BenchError: the file cannot be got, is no checkpoint, or not the one that the zoo or an earlier download says.
    """
    folder = folder or weights_folder()
    if (here := find_file(entry, folder)) is not None:
        return Fetched(here, verified(entry, here, folder), is_new=False)
    partial = folder / f".{stem_of(entry)}.part"
    with _alone(folder, entry):
        if source is not None:
            origin = found_in(source, entry)
            shutil.copyfile(origin, partial)
        elif not entry.address:
            raise BenchError(f"the zoo has no address of {entry.name}: fetch it yourself, and use --from DIR")
        else:
            (from_drive if entry.on_drive else over_http)(entry.address, partial, progress)
        came = f"{entry.name} from {origin if source else entry.url}"
        try:
            suffix, digest = suffix_of(partial, came), verified(entry, partial, folder, came)
        except BenchError:
            download.discard(partial)
            raise
        target = folder / (stem_of(entry) + suffix)
        record = Record(digest, partial.stat().st_size, str(origin) if source else entry.address)
        partial.replace(target)
        write_record(folder, stem_of(entry), record)
    return Fetched(target, digest, is_new=True)


def verified(entry: ZooEntry, path: Path, folder: Path, what: str = "") -> str:
    """SHA-256 of the file of a model, which must be what the zoo states and what was recorded when it first came.

    Raises:
        BenchError: it is neither; or the file is of another size than the zoo states.
    """
    what = what or f"{entry.name} in {path}"
    size = path.stat().st_size
    if entry.size is not None and size != entry.size:
        raise BenchError(f"{what} has {size} bytes, the zoo states {entry.size}: it is another file, or was cut")
    digest = file_digest(path)
    if not digest.startswith(entry.sha256):
        raise BenchError(f"{what} has SHA-256 {digest}, the zoo states {entry.sha256}: it is another file")
    recorded = None if entry.file else read_records(folder).get(stem_of(entry))
    if recorded and digest != recorded.sha256:
        raise BenchError(
            f"{what} has SHA-256 {digest}, but the file that came first, from {recorded.origin}, had "
            f"{recorded.sha256}: it was changed; if the new one is right, remove {stem_of(entry)} from "
            f"{records_file(folder)}"
        )
    return digest


def found_in(source: Path, entry: ZooEntry) -> Path:
    """The file of a model in a folder: by the name in its address, its id on Google Drive, or its name in the zoo.

    Raises:
        BenchError: there is none, or several.
    """
    if not source.is_dir():
        raise BenchError(f"--from {source} is not a folder")
    original = entry.address if entry.on_drive else entry.address.rpartition("/")[2]
    names = [each for each in (entry.name, original) if each]
    found = [
        path
        for path in sorted(source.iterdir())
        if path.is_file() and any(path.name == name or path.name.startswith(f"{name}.") for name in names)
    ]
    if len(found) > 1:
        raise BenchError(f"{source} has several files of {entry.name}: {', '.join(path.name for path in found)}")
    if not found:
        raise BenchError(
            f"{source} has no file of {entry.name}: name it {' or '.join(names)}, with any suffix (it is at "
            f"{entry.url or 'no known address'})"
        )
    return found[0]


@contextlib.contextmanager
def _alone(folder: Path, entry: ZooEntry) -> Iterator[None]:
    """Let no other process get the same file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{stem_of(entry)}.lock"
    with path.open("wb") as lock:
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BenchError(f"another process is getting {entry.name} into {folder}: wait for it") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
