"""Example images of the HTML report: deduplicated, compressed, and within a byte budget."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from reid_attack_bench.report.plots.sheets import amplified
from reid_attack_bench.report.results import CellRow, Results, Retrieved, Setting, Sheet

QUERIES = 2
"""Maximum number of queries per craft step."""

CRAFT_BYTES, GALLERY_BYTES = 4_000_000, 2_000_000
"""Byte budgets of adversarial images with their noise, and of gallery images, before base64 (a third more)."""

_HEIGHT = 96  # of a gallery image, in pixels

_QUALITY = {"clean": 80, "adversarial": 75, "noise": 50, "gallery": 65}


def examples(results: Results, cells: Sequence[CellRow], settings: Mapping[Setting, int]) -> dict[str, Any]:
    """Images as data URIs, for the script of the page.

    Args:
        cells: rows of the page, in its order.
        settings: setting → its index on the page.

    Returns:
        crafts: source, dataset, setting, queries, adversarial and noise (one image per query) of each sheet that
        fits; craft_of: cell index → index of its craft; found: cell index → for each query the lists before and after
        of (gallery index, correct); clean and gallery: data set → index → image. White-box cells take precedence:
        images that exceed the budget are left out of transfer cells first.
    """
    sheets = [sheet for sheet in results.sheets if len(sheet.queries) and len(sheet.clean)]
    queries = _affordable(sheets)
    crafts: list[dict[str, Any]] = []
    clean: dict[str, dict[int, str]] = {}
    number_of: dict[tuple[Setting, str, str], int] = {}
    spent = 0
    for sheet in sheets:
        setting = sheet.setting
        if queries == 0 or spent >= CRAFT_BYTES or setting not in settings:
            continue
        shown = slice(0, queries)
        noise = amplified(sheet.clean[shown], sheet.adversarial[shown], setting.epsilon)
        craft: dict[str, Any] = {"source": sheet.source, "dataset": sheet.dataset, "setting": settings[setting]}
        craft["queries"] = [int(query) for query in sheet.queries[shown]]
        craft["adversarial"] = [_data_uri(image, "adversarial") for image in sheet.adversarial[shown]]
        craft["noise"] = [_data_uri(image, "noise") for image in noise]
        spent += sum(len(uri) * 3 // 4 for uri in (*craft["adversarial"], *craft["noise"]))
        originals = clean.setdefault(sheet.dataset, {})
        for query, image in zip(craft["queries"], sheet.clean, strict=False):
            if query not in originals:
                originals[query] = _data_uri(image, "clean")
        number_of[setting, sheet.source, sheet.dataset] = len(crafts)
        crafts.append(craft)
    craft_of: dict[int, int] = {}
    for number, cell in enumerate(cells):
        craft_number = number_of.get((cell.setting, cell.source, cell.dataset))
        if craft_number is not None:
            craft_of[number] = craft_number
    found, gallery = _found(results, cells, craft_of, crafts)
    return {"crafts": crafts, "craft_of": craft_of, "found": found, "clean": clean, "gallery": gallery}


def _affordable(sheets: Sequence[Sheet]) -> int:
    """Number of queries of each craft that fit the budget, estimated from the size of a few images."""
    if not sheets:
        return 0
    tried = [sheets[number] for number in np.unique(np.linspace(0, len(sheets) - 1, 8).astype(int))]
    weights = []
    for sheet in tried:
        noise = amplified(sheet.clean[:1], sheet.adversarial[:1], sheet.setting.epsilon)[0]
        weights.append(
            sum(len(_webp(image, kind)) for image, kind in ((sheet.adversarial[0], "adversarial"), (noise, "noise")))
        )
    return max(1, min(QUERIES, int(CRAFT_BYTES / (len(sheets) * max(1.0, float(np.mean(weights)))))))


def _found(
    results: Results, cells: Sequence[CellRow], craft_of: Mapping[int, int], crafts: Sequence[Mapping[str, Any]]
) -> tuple[dict[int, list[Any]], dict[str, dict[int, str]]]:
    found: dict[int, list[Any]] = {}
    encoded: dict[str, dict[int, str]] = {}
    spent = 0
    for number in sorted(craft_of, key=lambda number: (not cells[number].own, number)):
        cell = cells[number]
        retrieved = results.retrieved.get(cell.rank_key)
        images = results.galleries.get(cell.dataset)
        if retrieved is None or images is None:
            continue
        count = len(crafts[craft_of[number]]["queries"])
        known = encoded.setdefault(cell.dataset, {})
        wanted = {int(index) for index in np.unique([retrieved.before[:count], retrieved.after[:count]]) if index >= 0}
        if spent >= GALLERY_BYTES and not wanted <= known.keys():
            continue
        for index in sorted(wanted - known.keys()):
            known[index] = _data_uri(_small(images[index]), "gallery")
            spent += len(known[index]) * 3 // 4
        found[number] = [_pair(retrieved, query) for query in range(count)]
    return found, encoded


def _pair(retrieved: Retrieved, query: int) -> dict[str, list[tuple[int | None, bool]]]:
    sides = {
        "before": (retrieved.before[query], retrieved.correct_before[query]),
        "after": (retrieved.after[query], retrieved.correct_after[query]),
    }
    return {
        name: [(int(index) if index >= 0 else None, bool(right)) for index, right in zip(*side, strict=True)]
        for name, side in sides.items()
    }


def _small(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    if height <= _HEIGHT:
        return image
    size = (max(1, round(width * _HEIGHT / height)), _HEIGHT)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _webp(image: np.ndarray, kind: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(content, "WEBP", quality=_QUALITY[kind], method=4)
    return content.getvalue()


def _data_uri(image: np.ndarray, kind: str) -> str:
    return "data:image/webp;base64," + base64.b64encode(_webp(image, kind)).decode()
