"""How hard a rendered domain is: ranked by colour histograms, and by a trained OSNet x0.25.

    python -m benchmarks.hard_domain rush --people 500 --distractors 500 --checkpoint osnet_x0_25.safetensors

Histograms are compared after the channels of each camera are brought to one mean and deviation: the most that a matcher
of colours can know about the cameras.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from reid_attack_bench.contracts import Victim, distances, to_float
from reid_attack_bench.data.split import Split
from reid_attack_bench.data.synthetic import DOMAINS, render_domain
from reid_attack_bench.metrics import ranking
from reid_attack_bench.victims.checkpoint import TorchreidCheckpoint

_DEVIATION, _MEAN, _BINS = 50.0, 128.0, 8


def scores(apart: Tensor, splits: Mapping[str, Split]) -> dict[str, float]:
    """Rank-k, mAP and mINP in percent of the distances, query × gallery."""
    query, gallery = splits["query"], splits["gallery"]
    labels = (query.identities, gallery.identities, query.cameras, gallery.cameras)
    return ranking.summary(ranking.rank(apart, *labels))


def by_histogram(splits: Mapping[str, Split], *, hsv: bool, bands: int = 1) -> dict[str, float]:
    """Scores of joint 8×8×8 histograms of RGB or HSV, one for each of `bands` horizontal bands, by L1 distance."""
    mine, theirs = (_histograms(splits[part], hsv, bands) for part in ("query", "gallery"))
    return scores(torch.cdist(mine, theirs, p=1), splits)


def by_network(splits: Mapping[str, Split], victim: Victim, batch: int = 64) -> dict[str, float]:
    """Scores of the embeddings of `victim`, by its distance."""
    with torch.no_grad():
        mine, theirs = (
            torch.cat([victim.embed(to_float(images)) for images in torch.from_numpy(splits[part].images).split(batch)])
            for part in ("query", "gallery")
        )
        return scores(distances(mine, theirs, victim.distance), splits)


def _histograms(split: Split, hsv: bool, bands: int) -> Tensor:
    top = 180 if hsv else 256
    found: list[np.ndarray] = [np.empty(0)] * len(split.images)
    for camera in np.unique(split.cameras):
        shot = np.flatnonzero(split.cameras == camera)
        pixels = split.images[shot].reshape(-1, 3)
        mean, deviation = pixels.mean(axis=0), pixels.std(axis=0, dtype=np.float32)
        for index in shot:
            evened = (split.images[index] - mean) * (_DEVIATION / deviation) + _MEAN
            image = np.clip(evened, 0, 255).astype(np.uint8)
            turned = cv2.cvtColor(image, cv2.COLOR_RGB2HSV) if hsv else image
            found[index] = np.concatenate(
                [
                    cv2.calcHist([band], [0, 1, 2], None, [_BINS] * 3, [0, top, 0, 256, 0, 256]).ravel()
                    for band in np.array_split(turned, bands)
                ]
            )
    return torch.from_numpy(np.stack(found))


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.hard_domain")
    parser.add_argument("domain", choices=sorted(DOMAINS))
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--distractors", type=int, default=0)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--checkpoint", type=Path, help="of OSNet x0.25, as torchreid stores it")
    given = parser.parse_args()
    splits = render_domain(
        given.domain, seed=0, size=(given.height, given.height // 2), train_identities=1,
        test_identities=given.people, images_per_camera=1, queries_per_identity=1, distractors=given.distractors,
    )  # fmt: skip
    found = {
        f"{'HSV' if hsv else 'RGB'} histograms, {bands} bands": by_histogram(splits, hsv=hsv, bands=bands)
        for hsv in (False, True)
        for bands in (1, 6)
    }
    if given.checkpoint:
        found["osnet_x0_25"] = by_network(splits, TorchreidCheckpoint("osnet_x0_25", given.checkpoint))
    print(f"{given.domain}: {len(splits['query'].images)} queries, {len(splits['gallery'].images)} gallery images")
    for name, values in found.items():
        print(f"{name}: Rank-1 {values['rank1']:.1f}, mAP {values['mAP']:.1f}")


if __name__ == "__main__":
    main()
