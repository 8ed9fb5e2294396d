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
from PIL import Image, ImageOps, UnidentifiedImageError

from reid_attack_bench.adversary import budget
from reid_attack_bench.adversary.access import Granted
from reid_attack_bench.contracts import Batch, QueryAttack, State, ThreatModel, Victim, to_float
from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import replace_file
from reid_attack_bench.metrics import visibility as image_metrics
from reid_attack_bench.metrics.catalogue import of_group
from reid_attack_bench.metrics.lpips import Lpips, find_lpips_weights
from reid_attack_bench.report.rows import write_csv

SUFFIXES = (".png", ".jpg", ".jpeg")


def columns() -> list[str]:
    """Columns of measures.csv, one row per image; metrics as in matrix.csv. lpips is empty without its weights."""
    return ["image", "height", "width", *(measure.name for measure in of_group("visibility"))]


_BATCH = 32

_PIXELS = 32 * 256 * 128  # limits the batch of large images

_ORIENTATION = 0x0112  # EXIF


@dataclass(frozen=True)
class ReadyAttack:
    """An attack with everything it needs to craft; `source` is None if the attack ignores it."""

    name: str
    attack: Any
    threat: ThreatModel
    source: Victim | None
    state: State | None
    seed: int = 0


def craft_folder(
    ready: ReadyAttack,
    images: Path,
    out: Path,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> pd.DataFrame:
    """Attack every PNG and JPEG in the folder `images`, each at its own size; PNGs of the same names go to `out`.

    Images are attacked in batches of one size, in the order of their names, after their EXIF orientation is applied.
    The budget is enforced as in a run.

    Returns:
        `columns`, one row per image, sorted by name; also written as measures.csv.

    Raises:
        BenchError: no images, one that cannot be read or is too small, an attack that needs labels or a gallery, or
            one that exceeds its budget.
    """
    device = device or torch.device("cpu")
    _check_needs(ready)
    paths = _find(images, out)
    weights = find_lpips_weights()
    lpips = Lpips(weights, device) if weights else None
    if ready.state is not None:
        ready = replace(ready, state={name: value.to(device) for name, value in ready.state.items()})
    generator = torch.Generator().manual_seed(seed)
    rows: list[dict[str, Any]] = []
    for group in _batches(paths):
        clean = np.stack([_read(path) for path in group])
        try:
            adversarial = _craft(ready, to_float(clean, device), generator)
            stored = budget.enforce(adversarial, clean, ready.threat, attack=ready.name)
            measured = image_metrics.measures(clean, stored, device, lpips)
        except BenchError as error:
            raise BenchError(f"{_names(group)}: {error}") from error
        for i, path in enumerate(group):
            _write(stored[i], out / f"{path.stem}.png")
            size = {"image": path.name, "height": clean.shape[1], "width": clean.shape[2]}
            rows.append({**size, **{name: values[i] for name, values in measured.items()}})
        progress(len(rows), len(paths), group[-1].name)
    table = pd.DataFrame(sorted(rows, key=operator.itemgetter("image")), columns=columns())
    write_csv(table, out / "measures.csv")
    return table


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


def _find(images: Path, out: Path) -> list[Path]:
    if not images.is_dir():
        raise BenchError(f"--images {images} is not a folder")
    if out.resolve() == images.resolve():
        raise BenchError(
            f"--out {out} is the folder of the images: choose another folder, or the images would be overwritten"
        )
    paths = sorted(path for path in images.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise BenchError(f"--images {images} holds no PNG or JPEG image")
    by_stem: dict[str, Path] = {}
    for path in paths:
        if path.stem in by_stem:
            raise BenchError(f"{by_stem[path.stem].name} and {path.name} would both become {path.stem}.png: rename one")
        by_stem[path.stem] = path
    return paths


def _batches(paths: list[Path]) -> Iterator[list[Path]]:
    """Images of one size together, in the order of their names."""
    groups: dict[tuple[int, int], list[Path]] = {}
    for path in paths:
        groups.setdefault(_size(path), []).append(path)
    for (height, width), group in groups.items():
        count = max(1, min(_BATCH, _PIXELS // (height * width)))
        for first in range(0, len(group), count):
            yield group[first : first + count]


def _size(path: Path) -> tuple[int, int]:
    """(height, width) after EXIF orientation, without decoding the pixels."""
    with _open(path) as image:
        width, height = image.size
        rotated = image.getexif().get(_ORIENTATION, 1) >= 5
    return (width, height) if rotated else (height, width)


def _read(path: Path) -> np.ndarray:
    """uint8 RGB H×W×3."""
    with _open(path) as image:
        try:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, SyntaxError) as error:
            raise BenchError(f"{path} cannot be decoded ({error}): replace or remove it") from error


def _open(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
    except (UnidentifiedImageError, OSError) as error:
        raise BenchError(f"{path} is not a readable image: replace or remove it") from error
    if image.mode.startswith(("I", "F")):
        image.close()
        raise BenchError(f"{path} has more than 8 bits per channel: convert it to 8 bits first")
    return image


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


def _names(group: list[Path]) -> str:
    return str(group[0]) + (f" (or one of the {len(group) - 1} after it)" if len(group) > 1 else "")


def _write(image: np.ndarray, path: Path) -> None:
    content = io.BytesIO()
    Image.fromarray(image).save(content, format="PNG")
    replace_file(path, content.getvalue())
