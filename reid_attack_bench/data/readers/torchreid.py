"""Market-1501, DukeMTMC-reID, CUHK03 and MSMT17 from a local folder, through the readers of torchreid.

torchreid decides which images are query, gallery or junk and how cameras are numbered. The order of the images and the
labels of training identities are set here, so that results do not depend on the file system. Nothing is downloaded.
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

from reid_attack_bench.contracts import ImageList
from reid_attack_bench.data.readers.files import content_digest
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.files import digest_of, fingerprint, is_settled, replace_file
from reid_attack_bench.torchreid_import import torchreid_module

MARKET = "market1501/Market-1501-v15.09.15"

MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}

DUKE_WITHDRAWN = (
    "recorded and published outside the protocol that its university had approved, taken offline by its authors in "
    "2019, on NeurIPS's list of deprecated data sets"
)

_MSMT_LISTS = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt")


@dataclass(frozen=True)
class RealData:
    """A published data set and its reader.

    Attributes:
        title: name in papers.
        layouts: alternative sets of files and folders, one of which must exist below the data root.
        url: download page.
        module, reader: module and class of torchreid that read it.
        options: keyword arguments of the reader that `read_real` accepts.
        single_shot: option that selects the ranking protocol of CUHK03; empty for none.
        withdrawn: as in contracts.DataSet.
        parses_paths: True if the reader searches whole paths, not only file names, for identity and camera.
    """

    title: str
    layouts: tuple[tuple[str, ...], ...]
    url: str
    module: str
    reader: str
    options: tuple[str, ...] = ()
    single_shot: str = ""
    withdrawn: str = ""
    parses_paths: bool = False


REAL: Mapping[str, RealData] = {
    "market1501": RealData(
        title="Market-1501",
        layouts=tuple(
            tuple(f"{base}/{folder}" for folder in MARKET_FOLDERS.values()) for base in (MARKET, "market1501")
        ),
        url="http://www.liangzheng.org/Project/project_reid.html",
        module="market1501",
        reader="Market1501",
        options=("market1501_500k",),
        parses_paths=True,
    ),
    "dukemtmc-reid": RealData(
        title="DukeMTMC-reID",
        layouts=(tuple(f"dukemtmc-reid/DukeMTMC-reID/{folder}" for folder in MARKET_FOLDERS.values()),),
        url="https://github.com/layumi/DukeMTMC-reID_evaluation (its authors have withdrawn the images)",
        withdrawn=DUKE_WITHDRAWN,
        module="dukemtmcreid",
        reader="DukeMTMCreID",
        parses_paths=True,
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
        url=(
            "http://www.ee.cuhk.edu.hk/~xgwang/CUHK_identification.html and, for the two config files of the 767/700 "
            "split, https://github.com/zhunzhong07/person-re-ranking"
        ),
        module="cuhk03",
        reader="CUHK03",
        options=("split_id", "cuhk03_labeled", "cuhk03_classic_split"),
        single_shot="cuhk03_classic_split",
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
        url="http://www.pkuvmc.com/dataset.html (on request)",
        module="msmt17",
        reader="MSMT17",
    ),
}
"""Name in suites → data set."""


def protocol(name: str, **options: Any) -> Literal["market1501", "cuhk03"]:
    """Ranking protocol: that of CUHK03 (single gallery shot) for its classic splits, else that of Market-1501."""
    return "cuhk03" if options.get(REAL[name].single_shot) else "market1501"


def read_real(name: str, data_root: Path, **options: Any) -> dict[str, ImageList]:
    """The "train", "query" and "gallery" splits of a data set below `data_root`.

    Junk images of Market-1501 (identity −1) are left out; its distractors (identity 0) stay in the gallery. MSMT17
    trains on list_train.txt without list_val.txt, as in published results. CUHK03 is the 767/700 split of detected
    boxes by default; torchreid extracts its images next to the .mat file on first use, which requires h5py and
    imageio.

    Args:
        name: a key of `REAL`.
        data_root: folder with subfolders named as the keys of `REAL`.
        options: options of torchreid's reader: market1501_500k (bool); split_id (int), cuhk03_labeled (bool),
            cuhk03_classic_split (bool).

    Raises:
        BenchError: unknown name or option, missing file or folder, or torchreid cannot read the data set.
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
            f"torchreid requires {error.name} to extract {known.title}: pip install {error.name}"
        ) from error
    except (AssertionError, AttributeError, LookupError, OSError, RuntimeError, ValueError) as error:
        raise BenchError(
            f"torchreid cannot read {known.title} in {root / name} ({type(error).__name__}: {error}): check that it is "
            f"complete, with its original file names, or get it again from {known.url}"
        ) from error

    lists = {
        split: _image_list(getattr(data, split), relabel=split == "train") for split in ("train", "query", "gallery")
    }
    for image_list in lists.values():
        for path in image_list.paths:
            if not path.startswith(f"{root / name}{os.sep}"):  # the split files of CUHK03 hold absolute paths
                raise BenchError(
                    f"the splits in {root / name} refer to {path}, but the data set was moved: delete the files "
                    "splits_*.json there; they are written again"
                )
    return lists


def content_of(
    name: str, data_root: Path, options: Mapping[str, Any], remember: Path | None
) -> tuple[str, dict[str, int]]:
    """`content_digest` of a data set and the number of images of each split.

    Args:
        name, data_root, options: as in `read_real`.
        remember: folder where the result is cached, valid while the fingerprints of all files are unchanged; None to
            always read the files.

    Raises:
        BenchError: as in `read_real`.
    """
    root = _checked_root(name, data_root, options)
    file = None if remember is None else remember / f"data-{name}-{digest_of([str(root), options])}"
    reader = importlib.metadata.version("torchreid")
    if file is not None and file.is_file():
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(file.read_text())
            counts = known.get("counts")  # absent in files of earlier versions
            if counts and known["reader"] == reader and known["files"] == _tree(root / name):
                return known["content"], counts
    lists = read_real(name, data_root, **options)
    tree = (
        None if file is None else _tree(root / name)
    )  # taken before reading, so that a change in the meantime invalidates it
    content, counts = content_digest(lists), {split: len(images.paths) for split, images in lists.items()}
    if file is not None and tree is not None:
        answer = {"reader": reader, "files": tree, "content": content, "counts": counts}
        with contextlib.suppress(OSError):  # not writable: read the files every time
            replace_file(file, json.dumps(answer).encode())
    return content, counts


def _tree(folder: Path) -> str | None:
    """Digest of the names and fingerprints of all files below `folder`; None if it could miss a change."""
    found = []
    for place, folders, files in os.walk(folder):
        if any(os.path.islink(os.path.join(place, each)) for each in folders):
            return None  # os.walk does not follow links
        found += [(path, fingerprint(Path(path))) for path in (os.path.join(place, file) for file in files)]
    return digest_of(sorted(found)) if all(is_settled(stat) for _, stat in found) else None


def _checked_root(name: str, data_root: Path, options: Mapping[str, Any]) -> Path:
    if name not in REAL:
        raise BenchError(f"unknown data set '{name}': {nearest(name, REAL)}")
    for option in options:
        if option not in REAL[name].options:
            raise BenchError(f"{name} has no option '{option}': {nearest(option, REAL[name].options)}")
    root = Path(os.path.abspath(Path(data_root).expanduser()))  # as in torchreid, so that paths can be compared
    _check_folder(name, root)
    return root


def _check_folder(name: str, root: Path) -> None:
    """Raise BenchError for a folder that torchreid would download into or misread."""
    known = REAL[name]
    missing = [[entry for entry in layout if not (root / entry).exists()] for layout in known.layouts]
    if all(missing):
        # report the layout with the fewest missing entries
        entry = min(missing, key=len)[0]
        raise BenchError(f"{known.title}: {root / entry} is missing: get the data from {known.url} and unpack it there")
    if known.parses_paths:
        odd = re.search(r"[-\d]+_c\d|[\[\]*?]", str(root))
        if odd:
            raise BenchError(
                f"torchreid misreads {known.title} below a folder with '{odd.group()}' in its path: move or link {root}"
            )


def _image_list(items: Sequence[tuple[Any, ...]], relabel: bool) -> ImageList:
    """Sort the (path, identity, camera, …) of torchreid by path; with `relabel`, label identities in that order."""
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
