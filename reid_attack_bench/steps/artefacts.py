"""Files that steps store: names and readers."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from reid_attack_bench.contracts import State
from reid_attack_bench.data.split import Split
from reid_attack_bench.metrics.ranking import Ranking

REFUSED = "query_refused"
"""Tensor in a features file, bool N: queries that the victim's detector refuses."""

_FEATURES = "features.safetensors"

_RANKING = "ranking.safetensors"

_NEAREST = "nearest.safetensors"

NEAREST = 10
"""Gallery images per query that the ranking of a victim stores which does not rank by a distance of vectors."""

TARGETS = "targets.safetensors"
"""File of a craft step whose attack impersonates: int64 N, the target identity of each query."""


def read_splits(folder: Path) -> dict[str, Split]:
    """The splits "query", "gallery" and, if there is one, "train" of a data step; images are memory-mapped."""
    index = load_file(folder / "index.safetensors")
    return {
        part: Split(
            np.load(folder / f"{part}.npy", mmap_mode="r"),
            index[f"{part}.identities"].numpy(),
            index[f"{part}.cameras"].numpy(),
            index[f"{part}.clothes"].numpy() if f"{part}.clothes" in index else None,
            f"{part}.cameras_unknown" not in index,
        )
        for part in ("train", "query", "gallery")
        if f"{part}.identities" in index
    }


def write_draws(folder: Path, draws: Sequence[State]) -> None:
    """Write the embeddings of a clean or features step, one state per draw of its victim.

    The first draw is stored by the names of its tensors, draw i by NAME.i. A tensor that only the first has is the same
    in all.
    """
    tensors = {f"{name}.{i}" if i else name: value for i, draw in enumerate(draws) for name, value in draw.items()}
    save_file(tensors, folder / _FEATURES)


def read_draws(folder: Path) -> list[State]:
    """Embeddings of a clean or features step, one state per draw; a single one of a deterministic victim."""
    tensors = load_file(folder / _FEATURES)
    names = [name for name in tensors if "." not in name]
    last = max(int(name.partition(".")[2] or 0) for name in tensors)
    return [{name: tensors.get(f"{name}.{i}", tensors[name]) for name in names} for i in range(last + 1)]


def write_ranking(
    folder: Path,
    ranking: Ranking,
    identities: np.ndarray,
    as_clean: Ranking | None,
    pairs: Mapping[str, np.ndarray],
) -> None:
    """Write the result of a rank or clean-rank step.

    Args:
        identities: int64 N, of the queries.
        as_clean: the ranking where a refused adversarial query counts as its clean version; None without a detector.
        pairs: "genuine", and of a clean ranking "thresholds", see `metrics.verification.true_positive_rates`.
    """
    arrays = {**vars(ranking), **pairs, "identities": identities}
    if as_clean is not None:
        arrays |= {"hit_as_clean": as_clean.hits[:, 0], "ap_as_clean": as_clean.ap}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
    save_file(tensors, folder / _RANKING)


def read_ranking(folder: Path) -> Ranking:
    """Ranking of a rank or clean-rank step."""
    arrays = load_file(folder / _RANKING)
    return Ranking(**{each.name: arrays[each.name].numpy() for each in fields(Ranking)})


def write_nearest(folder: Path, nearest: np.ndarray) -> None:
    """Write the nearest gallery images of each query, int64 Q×NEAREST, −1 if there are fewer."""
    save_file({"nearest": torch.from_numpy(nearest)}, folder / _NEAREST)


def read_nearest(folder: Path) -> np.ndarray | None:
    """What `write_nearest` wrote; None for a victim whose embeddings and distance say which images are nearest."""
    path = folder / _NEAREST
    return load_file(path)["nearest"].numpy() if path.is_file() else None


def read_pairs(folder: Path, name: str) -> np.ndarray | None:
    """ "genuine" or "thresholds" of a rank or clean-rank step; None for a step of an earlier version."""
    with safe_open(folder / _RANKING, framework="np") as file:
        return cast(np.ndarray, file.get_tensor(name)) if name in file.keys() else None  # noqa: SIM118  no mapping


def read_outcome(folder: Path) -> dict[str, np.ndarray]:
    """Outcome per query of a rank or clean-rank step: the arrays that report.per_query.PerQuery takes, by name.

    Those of earlier versions lack identities, and count a refused query as its clean version.
    """
    with safe_open(folder / _RANKING, framework="np") as file:
        stored = set(file.keys())
        names = ("ap", "valid", "identities", "hit_as_clean", "ap_as_clean")
        arrays = {name: file.get_tensor(name) for name in names if name in stored}
        hits = file.get_tensor("hits")
    return {"hit": hits[:, 0].copy(), "hit10": hits[:, 9].copy(), **arrays}


def new_images(folder: Path, part: str, shape: tuple[int, ...]) -> np.ndarray:
    """New uint8 array of `shape`, memory-mapped to the file of `part` in `folder`.

    Raises:
        OSError: the disk has no room for it. Writing to the map would end the process instead.
    """
    path = folder / f"{part}.npy"
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    reserve(path)
    return images


def reserve(path: Path) -> None:
    """Have the disk keep room for all of a sparse file of zeros.

    Raises:
        OSError: it has none.
    """
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size)
                return
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise
        # macOS, and file systems that cannot reserve: the header and the zeros are written
        block = 1 << 20
        for place in range(0, size, block):
            file.seek(place)
            content = file.read(min(block, size - place))
            file.seek(place)
            file.write(content)


def read_crafted(folder: Path) -> dict[str, np.ndarray]:
    """The perturbed sides of a craft step: part → uint8 N×H×W×3, memory-mapped."""
    return {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}


def write_targets(folder: Path, identities: np.ndarray) -> None:
    save_file({"identities": torch.from_numpy(identities)}, folder / TARGETS)


def read_targets(folder: Path) -> np.ndarray:
    """Target identities of a craft step whose attack impersonates, int64 N."""
    return load_file(folder / TARGETS)["identities"].numpy()
