"""Market-1501, DukeMTMC-reID, CUHK03 and MSMT17 from a local folder, through torchreid's own readers.

What is query and what is gallery, which images are junk and how cameras count are torchreid's; the order of images and
the labels of training identities are made here, so that a result does not depend on the file system.
Nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reid_attack_bench.data.readers.files import ImageList, content_digest
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.files import digest_of, fingerprint, is_settled, replace_file
from reid_attack_bench.torchreid_import import torchreid_module

_MARKET = "market1501/Market-1501-v15.09.15"

_MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}

_MSMT_LISTS = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt")


@dataclass(frozen=True)
class RealData:
    """What the bench knows of a published data set.

    Attributes:
        title: its name in papers.
        layouts: the files and folders that must be below the data root; several sets where several layouts are read.
        source: where to get it.
        module, reader: module and class of torchreid that read it.
        options: keyword arguments of the reader that `read_real` passes on.
    """

    title: str
    layouts: tuple[tuple[str, ...], ...]
    source: str
    module: str
    reader: str
    options: tuple[str, ...] = ()


REAL: Mapping[str, RealData] = {
    "market1501": RealData(
        title="Market-1501",
        layouts=tuple(
            tuple(f"{base}/{folder}" for folder in _MARKET_FOLDERS.values()) for base in (_MARKET, "market1501")
        ),
        source="http://www.liangzheng.org/Project/project_reid.html",
        module="market1501",
        reader="Market1501",
        options=("market1501_500k",),
    ),
    "dukemtmc-reid": RealData(
        title="DukeMTMC-reID",
        layouts=(tuple(f"dukemtmc-reid/DukeMTMC-reID/{folder}" for folder in _MARKET_FOLDERS.values()),),
        source="https://github.com/layumi/DukeMTMC-reID_evaluation (its authors have withdrawn the images)",
        module="dukemtmcreid",
        reader="DukeMTMCreID",
    ),
    "cuhk03": RealData(
        title="CUHK03",
        layouts=(
            (
                "cuhk03/cuhk03_release/cuhk-03.mat",
                "cuhk03/cuhk03_new_protocol_config_detected.mat",
                "cuhk03/cuhk03_new_protocol_config_labeled.mat",
            ),
        ),
        source=(
            "http://www.ee.cuhk.edu.hk/~xgwang/CUHK_identification.html and, for the two config files of the 767/700 "
            "split, https://github.com/zhunzhong07/person-re-ranking"
        ),
        module="cuhk03",
        reader="CUHK03",
        options=("split_id", "cuhk03_labeled", "cuhk03_classic_split"),
    ),
    "msmt17": RealData(
        title="MSMT17",
        layouts=tuple(
            tuple(f"msmt17/{version}/{entry}" for entry in (*folders, *_MSMT_LISTS))
            for version, folders in (
                ("MSMT17_V1", ("train", "test")),
                ("MSMT17_V2", ("mask_train_v2", "mask_test_v2")),
            )
        ),
        source="http://www.pkuvmc.com/dataset.html (on request)",
        module="msmt17",
        reader="MSMT17",
    ),
}
"""The data sets by the names that configurations use."""


def protocol(name: str, **options: Any) -> Literal["market1501", "cuhk03"]:
    """The ranking protocol of the data set: Market-1501's, but single gallery shot for the classic splits of CUHK03."""
    return "cuhk03" if name == "cuhk03" and options.get("cuhk03_classic_split") else "market1501"


def read_real(name: str, data_root: Path, **options: Any) -> dict[str, ImageList]:
    """The "train", "query" and "gallery" splits of a data set below `data_root`.

    Market-1501 loses its junk (identity −1) and keeps its distractors (identity 0) in the gallery. MSMT17 trains on
    list_train.txt alone, as published results do. CUHK03 is the 767/700 split of detected boxes unless
    `options` say otherwise; the first time, torchreid extracts its images next to the .mat file, which needs
    the packages h5py and imageio.

    Args:
        name: a key of `REAL`.
        data_root: the folder that holds "market1501", "dukemtmc-reid", "cuhk03", "msmt17".
        options: those of torchreid's reader: market1501_500k (bool); split_id (int), cuhk03_labeled (bool),
            cuhk03_classic_split (bool).

    Raises:
        BenchError: unknown name or option, a file or folder that is missing, a data set that
            torchreid cannot read.
    """
    root = _checked_root(name, data_root, options)
    known = REAL[name]
    reader = getattr(torchreid_module(f"data.datasets.image.{known.module}"), known.reader)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = reader(root=str(root), verbose=False, **options)
    except ImportError as error:
        raise BenchError(
            f"torchreid extracts {known.title} once, for which it needs {error.name}: pip install {error.name}"
        ) from error
    except (AssertionError, AttributeError, LookupError, OSError, RuntimeError, ValueError) as error:
        raise BenchError(
            f"torchreid cannot read {known.title} in {root / name} ({type(error).__name__}: {error}): is it complete, "
            f"with its own file names? Get it from {known.source}"
        ) from error

    lists = {
        split: _image_list(getattr(data, split), relabel=split == "train") for split in ("train", "query", "gallery")
    }
    for image_list in lists.values():
        for path in image_list.paths:
            if not path.startswith(f"{root / name}{os.sep}"):  # CUHK03's splits are files with absolute paths in them
                raise BenchError(
                    f"the splits in {root / name} name {path}, where the data set once was: delete the files "
                    "splits_*.json there, and they are written anew"
                )
    return lists


def content_of(
    name: str, data_root: Path, options: Mapping[str, Any], remember: Path | None
) -> tuple[str, dict[str, int]]:
    """`content_digest` of a data set and the number of images of each of its splits.

    Args:
        remember: folder in which the answer is kept for as long as the fingerprint of every file of the data set stays
            the same, so that none of them is read again; None to read them.

    Raises:
        BenchError: as read_real.
    """
    root = _checked_root(name, data_root, options)
    file = None if remember is None else remember / f"data-{name}-{digest_of([str(root), options])}"
    reader = importlib.metadata.version("torchreid")
    if file is not None and file.is_file():
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(file.read_text())
            counts = known.get("counts")  # none in a file of an earlier version
            if counts and known["reader"] == reader and known["files"] == _tree(root / name):
                return known["content"], counts
    lists = read_real(name, data_root, **options)
    tree = None if file is None else _tree(root / name)  # before the files are read: a change meanwhile gives another
    content, counts = content_digest(lists), {split: len(images.paths) for split, images in lists.items()}
    if file is not None and tree is not None:
        answer = {"reader": reader, "files": tree, "content": content, "counts": counts}
        with contextlib.suppress(OSError):  # nobody may write there: read them every time
            replace_file(file, json.dumps(answer).encode())
    return content, counts


def _tree(folder: Path) -> str | None:
    """Digest of the names and fingerprints of all files below; None where it might miss a change."""
    found = []
    for place, folders, files in os.walk(folder):
        if any(os.path.islink(os.path.join(place, each)) for each in folders):
            return None  # what lies behind a link is not walked
        found += [(path, fingerprint(Path(path))) for path in (os.path.join(place, file) for file in files)]
    return digest_of(sorted(found)) if all(is_settled(print_) for _, print_ in found) else None


def _checked_root(name: str, data_root: Path, options: Mapping[str, Any]) -> Path:
    if name not in REAL:
        raise BenchError(f"unknown data set '{name}': {nearest(name, REAL)}")
    for option in options:
        if option not in REAL[name].options:
            raise BenchError(f"{name} has no option '{option}': {nearest(option, REAL[name].options)}")
    root = Path(os.path.abspath(Path(data_root).expanduser()))  # as torchreid does it, so that paths compare
    _check_folder(name, root)
    return root


def _check_folder(name: str, root: Path) -> None:
    """Refuse what torchreid would download into, or misread."""
    known = REAL[name]
    missing = [[entry for entry in layout if not (root / entry).exists()] for layout in known.layouts]
    if all(missing):
        # of several layouts, the user means the one that is most nearly there
        entry = min(missing, key=len)[0]
        raise BenchError(
            f"{known.title}: {root / entry} is missing: get the data from {known.source} and unpack it there"
        )
    if name in ("market1501", "dukemtmc-reid"):
        # their readers glob, and search the whole path for the identity and camera of the file name
        odd = re.search(r"[-\d]+_c\d|[\[\]*?]", str(root))
        if odd:
            raise BenchError(
                f"torchreid misreads {known.title} in a folder with '{odd.group()}' in its path: move or link {root}"
            )


def _image_list(items: Sequence[tuple[Any, ...]], relabel: bool) -> ImageList:
    """Sort torchreid's (path, identity, camera, …) by path; label identities in the order of that."""
    rows = sorted((os.path.normpath(path), int(identity), int(camera)) for path, identity, camera, *_ in items)
    identities = np.array([identity for _, identity, _ in rows], np.int64)
    if relabel:
        labels = {identity: label for label, identity in enumerate(dict.fromkeys(identities.tolist()))}
        identities = np.array([labels[identity] for identity in identities.tolist()], np.int64)
    return ImageList(
        paths=tuple(path for path, _, _ in rows),
        identities=identities,
        cameras=np.array([camera for _, _, camera in rows], np.int64),
    )
