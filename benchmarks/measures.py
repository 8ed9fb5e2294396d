"""Cost of the visibility metrics: batched against single images; each image is measured once per run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks import small_matrix
from benchmarks.side_by_side import Line, in_turn, line
from reid_attack_bench.contracts import to_float
from reid_attack_bench.execute.device import keep_freed_memory
from reid_attack_bench.metrics import ssim
from reid_attack_bench.metrics import visibility as image_metrics

TOPIC = "measures"
IMAGES, HEIGHT, WIDTH = 32, 256, 128
BATCH = image_metrics.batch_size(np.empty((0, HEIGHT, WIDTH, 3)), torch.device("cpu"))


def measure() -> Iterator[Line]:
    keep_freed_memory()  # as a run does
    clean, adversarial = _pair()
    size = f"{HEIGHT}×{WIDTH}"

    def by(batch: int) -> None:
        for first in range(0, IMAGES, batch):
            image_metrics.measures(clean[first : first + batch], adversarial[first : first + batch])

    yield line(
        TOPIC, f"SSIM, MS-SSIM, checkerboard and counts of an image, {size}, {BATCH} at a time", "one at a time",
        in_turn(lambda: by(1), lambda: by(BATCH)), "× faster", "≥ 1", lambda x: x >= 1,
    )  # fmt: skip

    lpips = _untrained_lpips()
    before, after = to_float(clean, "cpu"), to_float(adversarial, "cpu")

    def lpips_by(batch: int) -> None:
        with torch.no_grad():
            for one, other in zip(before.split(batch), after.split(batch), strict=True):
                lpips(one, other)

    yield line(
        TOPIC, f"LPIPS of an image, {size}, {BATCH} at a time", "one at a time",
        in_turn(lambda: lpips_by(1), lambda: lpips_by(BATCH)), "× faster", "≥ 1", lambda x: x >= 1,
        "AlexNet with random weights: its time does not depend on them, its values mean nothing",
    )  # fmt: skip

    def apart() -> None:
        with torch.no_grad():
            for one, other in zip(before.split(BATCH), after.split(BATCH), strict=True):
                ssim.ssim(one, other)
                ssim.ms_ssim(one, other)

    def together() -> None:
        with torch.no_grad():
            for one, other in zip(before.split(BATCH), after.split(BATCH), strict=True):
                ssim.ssim_and_ms_ssim(one, other)

    yield line(
        TOPIC, f"SSIM and MS-SSIM from one pass over the finest scale, {size}", "each by itself",
        in_turn(apart, together), "× faster",
    )  # fmt: skip

    for targets in (1, 4):
        found = small_matrix.counts(sources=2, targets=targets)
        yield line(
            TOPIC, f"images measured, 2 sources, {targets} target{'s' * (targets > 1)}", "adversarial images made",
            [found["measured"] / found["crafted"]], "× as many", "= 1", lambda x: x == 1,
            f"counted in a run: {found['measured']:,} images",
        )  # fmt: skip


def _pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = rng.integers(8, 248, (IMAGES, HEIGHT, WIDTH, 3))
    return clean.astype(np.uint8), (clean + rng.integers(-8, 9, clean.shape)).astype(np.uint8)


def _untrained_lpips() -> Callable[[Tensor, Tensor], Tensor]:
    import lpips

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()

    def scores(clean: Tensor, adversarial: Tensor) -> Tensor:
        found: Tensor = network(clean, adversarial, normalize=True)
        return found.flatten()

    return scores
