"""Attack a folder of images that are not part of a data set."""

from __future__ import annotations

import io
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from reid_attack_bench.adversary import budget
from reid_attack_bench.adversary.access import Granted
from reid_attack_bench.contracts import Batch, QueryAttack, State, ThreatModel, Victim, to_float
from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import replace_file
from reid_attack_bench.jobs.pictures import Pictures, find_pictures, in_words, read_picture, size_of
from reid_attack_bench.metrics import visibility as image_metrics
from reid_attack_bench.metrics.catalogue import of_group
from reid_attack_bench.metrics.lpips import Lpips, find_lpips_weights
from reid_attack_bench.report.rows import write_csv


def columns() -> list[str]:
    """Columns of measures.csv, one row per image; metrics as in matrix.csv. lpips is empty without its weights."""
    return ["image", "height", "width", *(measure.name for measure in of_group("visibility"))]


_BATCH = 32

_PIXELS = 32 * 256 * 128  # limits the batch of large images


@dataclass(frozen=True)
class ReadyAttack:
    """An attack with everything it needs to craft; `source` is None if the attack ignores it."""

    name: str
    attack: Any
    threat: ThreatModel
    source: Victim | None
    state: State | None
    seed: int = 0


@dataclass(frozen=True)
class Crafted:
    """What `craft_folder` made.

    Attributes:
        table: `columns`, one row per image, sorted by name; also written as measures.csv.
        notes: what is in the folder but no image.
        failed: a line for each image that was left out, with its name and why.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]
    failed: tuple[str, ...]


def craft_folder(
    ready: ReadyAttack,
    images: Path,
    out: Path,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Crafted:
    """Attack every image in the folder `images`, each at its own size; PNGs of the same names go to `out`.

    Images are attacked in batches of one size, in the order of their names, after their EXIF orientation is applied.
    The budget is enforced as in a run. An image that cannot be read or attacked is left out.

    Raises:
        BenchError: no image could be attacked, or the attack needs labels or a gallery.
    """
    device = device or torch.device("cpu")
    _check_needs(ready)
    found = _find(images, out)
    weights = find_lpips_weights()
    lpips = Lpips(weights, device) if weights else None
    if ready.state is not None:
        ready = replace(ready, state={name: value.to(device) for name, value in ready.state.items()})
    generator = torch.Generator().manual_seed(seed)
    rows: list[dict[str, Any]] = []
    failed: dict[Path, BenchError] = {}

    def attack(clean: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        adversarial = _craft(ready, to_float(clean, device), generator)
        stored = budget.enforce(adversarial, clean, ready.threat, attack=ready.name)
        return stored, image_metrics.measures(clean, stored, device, lpips)

    for group in _batches(found.paths, failed):
        for paths, made, measured in _attacked(_without_damaged(group, failed), attack, failed):
            for i, path in enumerate(paths):
                _write(made[i], out / f"{path.stem}.png")
                size = {"image": path.name, "height": made.shape[1], "width": made.shape[2]}
                rows.append({**size, **{name: values[i] for name, values in measured.items()}})
        progress(len(rows) + len(failed), len(found.paths), group[-1].name)
    if not rows:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise BenchError(f"{failed[min(failed)]}{more}")
    table = pd.DataFrame(sorted(rows, key=operator.itemgetter("image")), columns=columns())
    write_csv(table, out / "measures.csv")
    lines = tuple(str(failed[path]) for path in sorted(failed))
    return Crafted(table, tuple(f"not read: {each}" for each in in_words(found.skipped)), lines)


def _check_needs(ready: ReadyAttack) -> None:
    missing = sorted({"labels", "gallery"} & set(ready.attack.needs))
    if missing:
        raise BenchError(
            f"attack {ready.name} needs {' and '.join(missing)}, which a folder of images does not have: use a suite"
        )
    if isinstance(ready.attack, QueryAttack):
        raise BenchError(f"attack {ready.name} queries a retrieval system, which a folder is not: use a suite")
    if ready.threat.impersonate:
        raise BenchError(f"attack {ready.name} impersonates, and images of a folder have no identities: use a suite")
    if ready.threat.perturbs != "query":
        raise BenchError(f"attack {ready.name} perturbs {ready.threat.perturbs}, but images of a folder are queries")


def _find(images: Path, out: Path) -> Pictures:
    found = find_pictures(images)
    if out.resolve() == images.resolve():
        raise BenchError(
            f"--out {out} is the folder of the images: choose another folder, or the images would be overwritten"
        )
    by_stem: dict[str, Path] = {}
    for path in found.paths:
        if path.stem in by_stem:
            raise BenchError(f"{by_stem[path.stem].name} and {path.name} would both become {path.stem}.png: rename one")
        by_stem[path.stem] = path
    return found


def _batches(paths: list[Path], failed: dict[Path, BenchError]) -> Iterator[list[Path]]:
    """Images of one size together, in the order of their names; those that do not open are added to `failed`."""
    groups: dict[tuple[int, int], list[Path]] = {}
    for path in paths:
        try:
            groups.setdefault(size_of(path), []).append(path)
        except BenchError as error:
            failed[path] = error
    for (height, width), group in groups.items():
        count = max(1, min(_BATCH, _PIXELS // (height * width)))
        for first in range(0, len(group), count):
            yield group[first : first + count]


def _without_damaged(group: list[Path], failed: dict[Path, BenchError]) -> dict[Path, np.ndarray]:
    """Path → pixels; those that cannot be decoded are added to `failed`."""
    clean = {}
    for path in group:
        try:
            clean[path] = read_picture(path)
        except BenchError as error:
            failed[path] = error
    return clean


def _attacked(
    clean: dict[Path, np.ndarray],
    attack: Callable[[np.ndarray], tuple[np.ndarray, dict[str, np.ndarray]]],
    failed: dict[Path, BenchError],
) -> Iterator[tuple[list[Path], np.ndarray, dict[str, np.ndarray]]]:
    """Paths with what `attack` makes of them: of all together; one by one where that fails, to find those to blame."""
    together = list(clean)
    try:
        if together:
            yield together, *attack(np.stack([clean[path] for path in together]))
        return
    except BenchError as error:
        if len(together) == 1:
            failed[together[0]] = _about(together[0], error)
            return
    for path in together:
        try:
            yield [path], *attack(clean[path][None])
        except BenchError as error:
            failed[path] = _about(path, error)


def _about(path: Path, error: BenchError) -> BenchError:
    return BenchError(f"{path}: {error}")


def _craft(ready: ReadyAttack, clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    learned = {} if ready.state is None else {"state": ready.state}
    try:
        source = None if ready.source is None else Granted(ready.source, ready.attack.needs, ready.name)
        adversarial: torch.Tensor = ready.attack.craft(source, Batch(clean), ready.threat, generator, **learned)
    except BenchError:
        raise
    except Exception as error:  # a plug-in may raise anything
        hint = "; it may need the model that it was fitted against: name it with --source" if not ready.source else ""
        raise BenchError(f"attack {ready.name} failed: {type(error).__name__}: {error}{hint}") from error
    return adversarial


def _write(image: np.ndarray, path: Path) -> None:
    content = io.BytesIO()
    Image.fromarray(image).save(content, format="PNG")
    replace_file(path, content.getvalue())
