"""Data sets by name: rendered domains, and those that a registered or a user's reader reads from disk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reid_attack_bench import registry
from reid_attack_bench.contracts import DataSet
from reid_attack_bench.data.readers import files
from reid_attack_bench.data.readers.content import code_of_readers, content_of, read_listing
from reid_attack_bench.data.readers.market1501 import WITHDRAWN
from reid_attack_bench.data.source import DataSource, OnDisk
from reid_attack_bench.data.split import Allocate, Progress, Split
from reid_attack_bench.data.synthetic import DOMAINS, RENDERER_VERSION, render_domain
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.files import canonical, expanded, plain

_SYNTHETIC_DEFAULTS: dict[str, int] = {
    "train_identities": 96,
    "test_identities": 64,
    "images_per_camera": 2,
    "queries_per_identity": 2,
    "distractors": 0,
}

_DEFAULTS_OF: dict[str, dict[str, int]] = {
    "rush": {
        "train_identities": 200,
        "test_identities": 500,
        "images_per_camera": 1,
        "queries_per_identity": 1,
        "distractors": 500,
    },
}
"""Domain → defaults of its own."""

LAYOUT, ROOT = "layout", "root"
"""Options of every data set on disk: its reader, and its folder or list. They are no part of its identity."""


def names() -> list[str]:
    """Data sets that a suite may name without a layout: rendered domains and registered readers."""
    return [*DOMAINS, *registry.available("data set")]


def source(
    name: str,
    options: Mapping[str, Any],
    *,
    size: tuple[int, int],
    seed: int,
    data_root: Path | None,
    remember: Path | None = None,
) -> DataSource:
    """The data set `name`.

    Args:
        name: one of `names()`; any other with a layout.
        options: options of the data set. Of one on disk, "layout" is the reader, a registered name or FILE.py:NAME (by
            default `name`), and "root" its folder or list of images (by default in the data root).
        size: (height, width) in pixels to which images are rendered or resized.
        seed: seed of the renderer.
        data_root: folder of the data sets on disk.
        remember: folder for what is known of them, see `readers.content`.

    Raises:
        BenchError: unknown name or option; a data set on disk is missing, cannot be read, or cannot be ranked.
    """
    if name in DOMAINS:
        return _synthetic(name, options, size, seed)
    found = examine(name, options, data_root, remember)
    if found.content.mistake:
        raise BenchError(f"data set {name} in {found.root}: {found.content.mistake}")

    def load(progress: Progress, allocate: Allocate) -> dict[str, Split]:
        splits = {}
        for part, images in read_listing(found.data_set, found.root).splits.items():
            out = allocate(part, (len(images.paths), *size, 3))
            decoded = files.load_images(images.paths, size, progress, out)
            splits[part] = Split(decoded, images.identities, images.cameras, images.clothes, images.cameras_known)
        return splits

    content = found.content
    identity = {"reader": found.reader, "options": _own(options), "content": content.digest, "size": list(size)}
    return DataSource(
        name=name,
        synthetic=found.data_set.synthetic,
        protocol=found.data_set.protocol,
        identity=identity,
        counts=found.counts,
        load=load,
        withdrawn=found.withdrawn,
        title=found.title,
        genuine=found.genuine,
        skipped=content.skipped,
        root=found.root,
        notes=found.notes,
        paths=lambda: {part: images.paths for part, images in read_listing(found.data_set, found.root).splits.items()},
    )


def examine(name: str, options: Mapping[str, Any], data_root: Path | None, remember: Path | None = None) -> OnDisk:
    """What is in the data set `name` on disk, whether it can be ranked or not; arguments as those of `source`.

    Raises:
        BenchError: unknown name or option, or it is missing or cannot be read.
    """
    plugin = _plugin(name, options)
    data_set: DataSet = plugin.build(_own(options))
    root = _root(name, options, data_set, data_root)
    code = canonical([plugin.key, plugin.code, plain(_own(options)), code_of_readers()])
    own = LAYOUT in options
    try:
        content = content_of(data_set, root, code, remember)
    except BenchError as error:
        where = f" (get it from {data_set.url})" if data_set.url and not own else ""
        raise BenchError(f"data set {name}: {error}{where}") from error
    title = name if own else data_set.title or name
    return OnDisk(name, title, data_set.withdrawn, data_set, plugin.key, root, content, _published(name))


def without_roots(datasets: Mapping[str, Any]) -> dict[str, Any]:
    """Options of data sets by name, without the folders of this machine."""
    return {
        name: {each: value for each, value in options.items() if each != ROOT} for name, options in datasets.items()
    }


def withdrawn(name: str) -> str:
    """Why the authors of the data set `name` have withdrawn it; empty for others, and for an unknown name."""
    if name not in registry.available("data set"):
        return WITHDRAWN.get(name, "")
    return str(getattr(registry.find("data set", name).factory, "withdrawn", ""))


def _root(name: str, options: Mapping[str, Any], data_set: DataSet, data_root: Path | None) -> Path:
    """Folder, or list of images, of a data set."""
    given = options.get(ROOT)
    if given is None:
        return _below(name, data_set, name if LAYOUT in options else data_set.folder or name, data_root)
    if not isinstance(given, str) or not given:
        raise BenchError(f"data set {name}: root must be a folder or a list of images, not {given!r}")
    root = Path(os.path.abspath(expanded(given)))  # without "..", as the paths of its images
    if not root.exists():
        raise BenchError(f"data set {name}: its root {root} is missing")
    return root


def _plugin(name: str, options: Mapping[str, Any]) -> registry.Plugin:
    layout = options.get(LAYOUT)
    if layout is None:
        if name not in registry.available("data set"):
            raise BenchError(
                f"unknown data set '{name}': {nearest(name, names())}; one of your own needs a layout and a root"
            )
        return registry.find("data set", name)
    if name in DOMAINS:
        raise BenchError(
            f"data set {name}: this is the name of a rendered domain: choose another for one with a layout"
        )
    if not isinstance(layout, str):
        raise BenchError(f"data set {name}: layout must be a registered reader or FILE.py:NAME, not {layout!r}")
    return registry.find("data set", layout)


def _own(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the reader."""
    return {option: value for option, value in options.items() if option not in (LAYOUT, ROOT)}


def _below(name: str, data_set: DataSet, folder: str, data_root: Path | None) -> Path:
    """The folder of a data set in the data root; also under its official name, as Market-1501-v15.09.15."""
    get = f" (get it from {data_set.url})" if data_set.url else ""
    if data_root is None:
        raise BenchError(
            f"data set {name} is read from disk: give --data-root DIR, where DIR contains {folder}, or its own folder "
            f"as root in the suite{get}"
        )
    base = Path(os.path.abspath(expanded(data_root)))
    if (base / folder).exists():
        return base / folder
    if (base / f"{folder}.csv").is_file():
        return base / f"{folder}.csv"
    there = sorted(each.name for each in base.iterdir() if each.is_dir()) if base.is_dir() else []
    alike = [each for each in there if re.fullmatch(rf"{_letters(folder)}(v?\d*)", _letters(each))]
    if len(alike) == 1:
        return base / alike[0]
    raise BenchError(
        f"data set {name}: {base / folder} is missing; {base} has {_some(there)}: name its folder as root in the "
        f"suite, or move it there{get}"
    )


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _some(folders: Iterable[str]) -> str:
    listed = [f"{folder}/" for folder in folders]
    return ", ".join(listed[:6]) + (f" and {len(listed) - 6} more" if len(listed) > 6 else "") or "no folder"


def _published(name: str) -> Mapping[str, int]:
    """Published number of images by split of the data set of this name; empty if none is."""
    if name not in registry.available("data set"):
        return {}
    return dict(getattr(registry.find("data set", name).factory, "images", {}))


def _synthetic(name: str, options: Mapping[str, Any], size: tuple[int, int], seed: int) -> DataSource:
    for option, value in options.items():
        if option in (LAYOUT, ROOT):
            raise BenchError(f"data set {name} is rendered and has no {option}: choose another name for one on disk")
        if option not in _SYNTHETIC_DEFAULTS:
            raise BenchError(f"data set {name} has no option '{option}': {nearest(option, _SYNTHETIC_DEFAULTS)}")
        if not isinstance(value, int) or value < (option != "distractors"):
            kind = "whole number of 0 or more" if option == "distractors" else "positive whole number"
            raise BenchError(f"data set {name}: {option} must be a {kind}, not {value!r}")
    settings = {**_SYNTHETIC_DEFAULTS, **_DEFAULTS_OF.get(name, {}), **options}
    cameras = DOMAINS[name].seen_by or DOMAINS[name].cameras
    if settings["queries_per_identity"] >= cameras:
        raise BenchError(
            f"data set {name}: queries_per_identity must be less than {cameras}, the cameras that see a person, not "
            f"{settings['queries_per_identity']}: matches from other cameras are needed for the gallery"
        )
    shots = settings["images_per_camera"] * cameras
    queries = settings["test_identities"] * settings["queries_per_identity"]
    counts = {
        "train": settings["train_identities"] * shots,
        "query": queries,
        "gallery": settings["test_identities"] * shots - queries + settings["distractors"],
    }
    if not settings["distractors"]:  # results stored before there were distractors are still found
        del settings["distractors"]

    def load(progress: Progress, allocate: Allocate) -> dict[str, Split]:
        splits = render_domain(name, seed=seed, size=size, progress=progress, **settings)
        for part, split in splits.items():
            allocate(part, split.images.shape)[:] = split.images
        return splits

    identity = {"renderer": RENDERER_VERSION, "domain": name, "seed": seed, "size": list(size), **settings}
    return DataSource(name, True, "market1501", identity, counts, load, title=name)
