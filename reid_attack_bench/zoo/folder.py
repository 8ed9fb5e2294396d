"""The weights folder: where the file of a zoo model is, and the digests that were recorded when it came."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import expanded, replace_file
from reid_attack_bench.zoo.catalogue import ZooEntry

WEIGHTS_VARIABLE = "REID_ATTACK_BENCH_WEIGHTS"

SUFFIXES = (".pth", ".safetensors")
"""Suffixes of files in the weights folder: PyTorch's formats, and safetensors."""

_RECORDS = "digests.json"


@dataclass(frozen=True)
class Record:
    """What is known of a file since it came.

    Attributes:
        sha256: of the file, 64 hexadecimal digits.
        size: bytes.
        origin: address or path that it came from.
    """

    sha256: str
    size: int
    origin: str


def weights_folder() -> Path:
    """$REID_ATTACK_BENCH_WEIGHTS, else reid-attack-bench/weights in $XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get(WEIGHTS_VARIABLE)
    if named:
        return expanded(named)
    cache = expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    # without a home there is no such folder, and none is made where the bench happens to run
    return (cache if cache.is_absolute() else Path("/nonexistent")) / "reid-attack-bench" / "weights"


def stem_of(entry: ZooEntry) -> str:
    """Name of its file without suffix. A user's model that replaces a shipped one has a file of its own."""
    return f"{entry.name}-own" if entry.stands_in else entry.name


def find_file(entry: ZooEntry, folder: Path | None = None) -> Path | None:
    """The file of a model; None if it is not in the weights folder.

    Raises:
        BenchError: the zoo file names a file that is not there.
    """
    if entry.file:
        path = expanded(entry.file)
        path = path if path.is_absolute() or entry.zoo_file is None else entry.zoo_file.parent / path
        if not path.is_file():
            raise BenchError(f"{entry.zoo_file}: models.{entry.name}.file: {path.absolute()} does not exist")
        return path
    return file_of(stem_of(entry), folder)


def file_of(stem: str, folder: Path | None = None) -> Path | None:
    """The file of this name with one of `SUFFIXES`; None if it is not in the weights folder."""
    base = folder or weights_folder()
    return next((path for path in (base / (stem + each) for each in SUFFIXES) if path.is_file()), None)


def read_records(folder: Path) -> dict[str, Record]:
    """File stem → record.

    Raises:
        BenchError: the file of records cannot be read.
    """
    path = folder / _RECORDS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {stem: Record(**fields) for stem, fields in content.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise BenchError(f"{path} is corrupt ({error}): delete it; digests are recorded anew by weights get") from error


def write_record(folder: Path, stem: str, record: Record) -> None:
    """Add or replace one record."""
    records = {**read_records(folder), stem: record}
    text = json.dumps({name: asdict(each) for name, each in sorted(records.items())}, indent=1)
    replace_file(folder / _RECORDS, (text + "\n").encode())


def records_file(folder: Path) -> Path:
    """The file that `write_record` writes, for messages."""
    return folder / _RECORDS
