"""Data sets by name: the embedded synthetic domains, and real ones from --data-root."""

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
    """Where one data set comes from.

    Attributes:
        name: as in tables.
        synthetic: True for the embedded domains; every result on them says so.
        protocol: how rankings are scored, see metrics.ranking.
        identity: what its content depends on, as plain values; part of every step's key.
        counts: number of images of "train", "query" and "gallery"; it only serves to estimate run times.
        load: decodes or renders everything at the suite's size.
    """

    name: str
    synthetic: bool
    protocol: Literal["market1501", "cuhk03"]
    identity: Mapping[str, Any]
    counts: Mapping[str, int]
    load: Callable[[Progress, Allocate], dict[str, Split]]


def names() -> dict[str, str]:
    """Every data set that a suite may name, with a line about it."""
    return {
        **dict.fromkeys(DOMAINS, "synthetic, rendered here"),
        **{name: f"{entry.title}, read from --data-root" for name, entry in real.REAL.items()},
    }


def source(
    name: str,
    options: Mapping[str, Any],
    *,
    size: tuple[int, int],
    seed: int,
    data_root: Path | None,
    remember: Path | None = None,
) -> DataSource:
    """The data set `name` at `size` = (height, width); `remember` as in real.content_of.

    Raises:
        BenchError: unknown name or option, or a real data set that is not there.
    """
    if name in DOMAINS:
        return _synthetic(name, options, size, seed)
    known = names()
    if name not in known:
        raise BenchError(f"no data set is called '{name}': {nearest(name, known)}")
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
            f"data set {name} is read from disk: say where with --data-root DIR, which must hold {entry.layouts[0][0]} "
            f"(get it from {entry.source})"
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
    return DataSource(name, False, real.protocol(name, **options), identity, counts, load)
