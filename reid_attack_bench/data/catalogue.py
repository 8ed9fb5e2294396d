"""Data sets by name: rendered synthetic domains, and published data sets read from --data-root."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reid_attack_bench.data.readers import files
from reid_attack_bench.data.readers import torchreid as real
from reid_attack_bench.data.split import Allocate, Progress, Split
from reid_attack_bench.data.synthetic import DOMAINS, RENDERER_VERSION, render_domain
from reid_attack_bench.errors import BenchError, nearest

_SYNTHETIC_DEFAULTS: dict[str, int] = {
    "train_identities": 96,
    "test_identities": 64,
    "images_per_camera": 2,
    "queries_per_identity": 2,
}


@dataclass(frozen=True)
class DataSource:
    """One data set, ready to load.

    Attributes:
        name: name in suites and tables.
        synthetic: True for rendered domains; results on them are marked as synthetic.
        protocol: ranking protocol, see `metrics.ranking`.
        identity: everything that determines its content, as plain values; part of the key of every step.
        counts: number of images of "train", "query" and "gallery"; used only to estimate run times.
        withdrawn: why its authors have withdrawn it, see contracts.DataSet; results on it are marked. Empty for others.
        load: decodes or renders the splits "train", "query" and "gallery" at the size of the suite.
    """

    name: str
    synthetic: bool
    protocol: Literal["market1501", "cuhk03"]
    identity: Mapping[str, Any]
    counts: Mapping[str, int]
    load: Callable[[Progress, Allocate], dict[str, Split]]
    withdrawn: str = ""


def names() -> dict[str, str]:
    """Name → one-line description of every data set that a suite may name."""
    return {
        **dict.fromkeys(DOMAINS, "synthetic, rendered by the bench"),
        **{name: f"{entry.title}, read from --data-root" for name, entry in real.REAL.items()},
    }


def withdrawn(name: str) -> str:
    """Why the authors of the data set `name` have withdrawn it; empty for others, and for an unknown name."""
    return real.REAL[name].withdrawn if name in real.REAL else ""


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
        name: a key of `names()`.
        options: options of the data set.
        size: (height, width) in pixels to which images are rendered or resized.
        seed: seed of the renderer.
        data_root: folder of the published data sets.
        remember: folder for cached digests, see `readers.torchreid.content_of`.

    Raises:
        BenchError: unknown name or option, or the files of a published data set are missing.
    """
    if name in DOMAINS:
        return _synthetic(name, options, size, seed)
    known = names()
    if name not in known:
        raise BenchError(f"unknown data set '{name}': {nearest(name, known)}")
    return _real(name, options, size, data_root, remember)


def _synthetic(name: str, options: Mapping[str, Any], size: tuple[int, int], seed: int) -> DataSource:
    for option, value in options.items():
        if option not in _SYNTHETIC_DEFAULTS:
            raise BenchError(f"data set {name} has no option '{option}': {nearest(option, _SYNTHETIC_DEFAULTS)}")
        if not isinstance(value, int) or value < 1:
            raise BenchError(f"data set {name}: {option} must be a positive whole number, not {value!r}")
    settings = {**_SYNTHETIC_DEFAULTS, **options}
    shots = settings["images_per_camera"] * DOMAINS[name].cameras
    queries = settings["test_identities"] * settings["queries_per_identity"]
    counts = {
        "train": settings["train_identities"] * shots,
        "query": queries,
        "gallery": settings["test_identities"] * shots - queries,
    }

    def load(progress: Progress, allocate: Allocate) -> dict[str, Split]:
        splits = render_domain(name, seed=seed, size=size, progress=progress, **settings)
        for part, split in splits.items():
            allocate(part, split.images.shape)[:] = split.images
        return splits

    identity = {"renderer": RENDERER_VERSION, "domain": name, "seed": seed, "size": list(size), **settings}
    return DataSource(name, True, "market1501", identity, counts, load)


def _real(
    name: str, options: Mapping[str, Any], size: tuple[int, int], data_root: Path | None, remember: Path | None
) -> DataSource:
    entry = real.REAL[name]
    if data_root is None:
        raise BenchError(
            f"data set {name} is read from disk: give --data-root DIR, where DIR contains {entry.layouts[0][0]} "
            f"(get it from {entry.url})"
        )
    content, counts = real.content_of(name, data_root, options, remember)

    def load(progress: Progress, allocate: Allocate) -> dict[str, Split]:
        lists = real.read_real(name, data_root, **options)
        splits = {}
        for part, images in lists.items():
            out = allocate(part, (len(images.paths), *size, 3))
            splits[part] = Split(
                files.load_images(images.paths, size, progress, out), images.identities, images.cameras
            )
        return splits

    identity = {"reader": name, "options": dict(options), "content": content, "size": list(size)}
    return DataSource(name, False, real.protocol(name, **options), identity, counts, load, entry.withdrawn)
