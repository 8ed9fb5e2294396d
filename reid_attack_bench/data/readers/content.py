"""What is in a data set on disk: its digest, its counts, and what is wrong with it; remembered until a file changes."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from reid_attack_bench.contracts import DataSet, ImageList, Listing, RankingProtocol
from reid_attack_bench.data.readers.files import content_digest
from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import digest_of, file_digest, fingerprint, is_settled, replace_file

PARTS = ("train", "query", "gallery")


@dataclass(frozen=True)
class Content:
    """What a reader found, without the lists themselves.

    Attributes:
        digest: see `files.content_digest`.
        counts: split → number of "images", "identities" and "cameras"; all 0 for a training split that is not there.
        matched: number of queries with a match in the gallery that is not junk.
        mistake: why no figure can be computed on it; empty if one can.
        skipped: as in Listing.
    """

    digest: str
    counts: Mapping[str, Mapping[str, int]]
    matched: int
    mistake: str
    skipped: Mapping[str, list[str]]


def read_listing(data_set: DataSet, root: Path) -> Listing:
    """What `data_set` reads in `root`, in the order that the bench uses: splits are sorted by path, and identities of
    the training split are numbered in that order.

    Raises:
        BenchError: the reader cannot read it, or returns something else.
    """
    listing = data_set.read(root)
    name = type(data_set).__name__
    if not isinstance(listing, Listing):
        raise BenchError(f"{name}.read returned {type(listing).__name__}, not a Listing")
    splits = {part: _in_order(images, part, name) for part, images in listing.splits.items()}
    for part in ("query", "gallery"):
        if part not in splits:
            raise BenchError(f"{name}.read returned no split '{part}', only {', '.join(splits) or 'none'}")
    if "train" in splits and not splits["train"].paths:
        del splits["train"]
    return Listing({part: splits[part] for part in PARTS if part in splits}, listing.skipped)


def content_of(data_set: DataSet, root: Path, reader: str, remember: Path | None) -> Content:
    """What is in the data set in `root`.

    Args:
        data_set: its reader.
        reader: identifies the code and options of the reader.
        remember: folder where the answer is kept, valid while the fingerprints of all files are unchanged; None to
            always read the files.

    Raises:
        BenchError: it cannot be read. What it lacks for a ranking is in `mistake`.
    """
    file = None if remember is None else remember / f"data-{digest_of([reader, str(root)])}"
    if file is not None and file.is_file():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(file.read_text(encoding="utf-8"))
            if known["files"] is not None and known["files"] == _files(root, known["elsewhere"]):
                return Content(**known["content"])
    listing = read_listing(data_set, root)
    paths = [path for images in listing.splits.values() for path in images.paths]
    elsewhere = sorted({path for path in paths if not path.startswith(f"{root}{os.sep}")})
    # taken before reading, so that a change in the meantime invalidates it
    files = None if file is None else _files(root, elsewhere)
    content = Content(
        content_digest(listing.splits),
        {part: _counts(listing.splits.get(part)) for part in PARTS},
        int(_matched(listing.splits, data_set.protocol).sum()),
        _mistake(listing.splits, data_set.protocol),
        {reason: list(names) for reason, names in listing.skipped.items()},
    )
    if file is not None and files is not None:
        answer = {"files": files, "elsewhere": elsewhere, "content": asdict(content)}
        with contextlib.suppress(OSError):  # not writable: read the files every time
            replace_file(file, json.dumps(answer).encode())
    return content


@functools.cache
def code_of_readers() -> str:
    """Digest of the readers here and of the version of torchreid: what is remembered holds for these alone."""
    sources = [file_digest(path) for path in sorted(Path(__file__).parent.glob("*.py"))]
    return digest_of([*sources, importlib.metadata.version("torchreid")])


def _in_order(images: ImageList, part: str, name: str) -> ImageList:
    if part not in PARTS:
        raise BenchError(f"{name}.read returned a split '{part}': splits are {', '.join(PARTS)}")
    paths = np.array([os.path.abspath(path) for path in images.paths], dtype=object)
    order = np.array(sorted(range(len(paths)), key=paths.__getitem__), np.intp)
    columns = {}
    for label in ("identities", "cameras", "clothes"):
        values = getattr(images, label)
        if values is None and label == "clothes":
            continue
        array = np.asarray(values)
        if array.shape != (len(paths),) or (len(paths) and (array.dtype.kind not in "iu" or array.min() < 0)):
            raise BenchError(
                f"{name}.read: {label} of {part} must be {len(paths)} whole numbers of at least 0, one for each path"
            )
        columns[label] = array[order].astype(np.int64)
    if part == "train":
        numbers = {identity: i for i, identity in enumerate(dict.fromkeys(columns["identities"].tolist()))}
        columns["identities"] = np.array([numbers[each] for each in columns["identities"].tolist()], np.int64)
    return ImageList(tuple(paths[order]), **columns, cameras_known=images.cameras_known)


def _counts(images: ImageList | None) -> dict[str, int]:
    if images is None:
        return {"images": 0, "identities": 0, "cameras": 0}
    return {
        "images": len(images.paths),
        "identities": len(np.unique(images.identities)),
        "cameras": len(np.unique(images.cameras)),
    }


def _matched(splits: Mapping[str, ImageList], protocol: RankingProtocol) -> np.ndarray:
    """Bool N: queries with a gallery image of their identity that is not junk."""
    query, gallery = splits["query"], splits["gallery"]
    clothes = protocol == "clothes"
    seen: dict[int, set[tuple[int, int]]] = defaultdict(set)
    for identity, camera, worn in _rows(gallery):
        seen[identity].add((camera, worn))
    return np.array(
        [
            any(other != camera and (not clothes or dress != worn) for other, dress in seen.get(identity, ()))
            for identity, camera, worn in _rows(query)
        ],
        bool,
    )


def _rows(images: ImageList) -> Iterable[tuple[int, int, int]]:
    """Identity, camera and clothes (0 without labels) of each image."""
    worn = np.zeros(len(images.paths), np.int64) if images.clothes is None else images.clothes
    return zip(images.identities.tolist(), images.cameras.tolist(), worn.tolist(), strict=True)


def _mistake(splits: Mapping[str, ImageList], protocol: RankingProtocol) -> str:
    query, gallery = splits["query"], splits["gallery"]
    for part in ("query", "gallery"):
        if not splits[part].paths:
            return f"it has no {part} images"
    if protocol == "clothes" and (query.clothes is None or gallery.clothes is None):
        return "it is ranked by clothes, but has no clothes labels"
    known = np.isin(query.identities, gallery.identities)
    if not known.any():
        return "no query identity occurs in the gallery"
    if not _matched(splits, protocol).any():
        cameras = len(np.unique(np.concatenate([query.cameras, gallery.cameras])))
        other = " and in other clothes" if protocol == "clothes" else ""
        return (
            f"no query has a match from another camera{other} (it has {cameras} camera{'s' if cameras > 1 else ''}), "
            "so every match is junk; if cameras are unknown, list the images in a CSV file without cameras"
        )
    return ""


def _files(root: Path, elsewhere: list[str]) -> str | None:
    """Digest of the names and fingerprints of all files in `root` and of those `elsewhere`; None if it could miss a
    change."""
    paths = [str(root), *elsewhere] if root.is_file() else list(elsewhere)
    for place, folders, names in os.walk(root):
        if any(os.path.islink(os.path.join(place, each)) for each in folders):
            return None  # os.walk does not follow links
        paths += [os.path.join(place, name) for name in names]
    found = [(path, fingerprint(Path(path))) for path in sorted(paths)]
    return digest_of(found) if all(is_settled(stat) for _, stat in found) else None
