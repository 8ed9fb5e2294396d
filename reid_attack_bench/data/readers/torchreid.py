"""Read data sets with torchreid's readers, from any folder; nothing is downloaded or printed."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reid_attack_bench.contracts import ImageList
from reid_attack_bench.data.readers.layout import Labelled, image_list
from reid_attack_bench.errors import BenchError
from reid_attack_bench.torchreid_import import torchreid_module


def read_with_torchreid(
    module: str,
    reader: str,
    root: Path,
    options: Mapping[str, Any] | None = None,
    methods: Mapping[str, Callable[..., Any]] | None = None,
) -> dict[str, ImageList]:
    """The splits "train", "query" and "gallery" of the data set in `root`; identities as torchreid numbers them.

    Args:
        module, reader: module below torchreid.reid.data.datasets.image, and class.
        root: folder of the data set; it must exist, or torchreid would download.
        options: keyword arguments of the reader.
        methods: replace methods of the reader.

    Raises:
        BenchError: torchreid cannot read the data set.
    """
    if not root.is_dir():
        raise BenchError(f"{root} is missing")
    base = getattr(torchreid_module(f"data.datasets.image.{module}"), reader)
    made = type(reader, (base,), {"dataset_dir": root.name, **(methods or {})})
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = made(root=str(root.parent), verbose=False, **(options or {}))
    except ImportError as error:
        raise BenchError(f"torchreid requires {error.name} to extract {root}: pip install {error.name}") from error
    except (AssertionError, AttributeError, LookupError, OSError, RuntimeError, ValueError) as error:
        raise BenchError(
            f"torchreid cannot read {root} ({type(error).__name__}: {error}): check that it is complete, with its "
            "original file names"
        ) from error
    return {
        part: image_list(Labelled(path, int(identity), int(camera)) for path, identity, camera, *_ in items)
        for part, items in (("train", data.train), ("query", data.query), ("gallery", data.gallery))
    }
