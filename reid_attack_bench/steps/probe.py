"""Probe of a ready victim: a coarse digest of its outputs on fixed images, as part of its key.

Code, options and weights do not decide an embedding alone: a helper module, a file of settings or a variable of the
environment may. The outputs show any of them.

Digests of floating-point results must be equal where only rounding differs. The outputs are projected on fixed random
directions, in units of their own scale, and rounded to steps of 0.05. A relative change c of the outputs moves each of
n = 48 values (64 of a classifier) by about 0.8 c: it is noticed with a probability of about 1 − exp(−0.8 c n / 0.05).
Where embeddings of different images are alike, c counts up to ten times for their differences. Measured on 1500 toys
(300 from 1e-4 on), whose embeddings are alike:

| relative change | 1e-6 | 1e-5 | 1e-4 | 0.1 % | 0.3 % | 1 % |
|---|---|---|---|---|---|---|
| noticed | 0.1 % | 1.6 % | 16 % | 79 % | 99 % | 100 % |

On one machine rounding is never noticed: the probe is computed on the CPU with one thread. Between machines, one victim
in a few hundred is evaluated again without need: OSNet, ResNet-50, ShuffleNet and MobileNet with AVX-512, AVX2 and
SSE4.1 differ by 0 to 7e-6, mostly by less than 1e-6, and each has one digest. What goes unnoticed, a change of a tenth
of a percent, hardly changes a rank.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from reid_attack_bench.contracts import Victim, bound, with_cameras
from reid_attack_bench.contracts.cameras import UNKNOWN
from reid_attack_bench.files import digest_of
from reid_attack_bench.steps.loan import as_it_was

STEP = 0.05
"""Width of a step, in standard deviations of a projection."""

DIRECTIONS = 16
"""Projections of each output."""

_LEAST = 0.1
"""Smallest unit of differences between embeddings, as a share of their scale: a model that gives all images nearly one
embedding has differences that are all rounding."""

_SAME = 1e-4
"""Largest relative difference of two passes that start from the same seeds."""


DIFFERS = "differs"
"""In place of a digest: the victim draws numbers that no seed repeats, or remembers what came before."""


def probe(victim: Victim) -> str:
    """Digest of what a victim answers to fixed images, or `DIFFERS`; empty if it fails on them.

    The victim is put in eval mode; else it and the random numbers of the process stay as they were.
    """
    try:
        victim = bound(victim)
        images = _images(*victim.input_size)
        small = _images(*(max(1, 3 * side // 4) for side in victim.input_size))[:1]
        if victim.uses_cameras:
            images, small = with_cameras(images, torch.tensor([0, UNKNOWN])), with_cameras(small, torch.tensor([0]))
        with _alone(victim):
            pair = _embeddings(victim, images)
            if not torch.isfinite(pair).all():
                return ""
            mean = pair.mean(dim=0)
            if not _takes(victim, small, len(mean)):
                small = images[:1]
            other, again = _embeddings(victim, small), _embeddings(victim, small)
            if _differ(other, again):
                return DIFFERS
            unit = _scale(mean)
            found = [[len(mean), *_steps(unit.log2())], _projected(mean, unit)]
            for one in (pair[0], other[0]):
                found.append(_projected(one - mean, torch.maximum(_scale(one - mean), _LEAST * unit)))
            return digest_of(found + _answers(victim, small))[:16]
    except Exception:  # said when it is examined
        return ""


def _embeddings(victim: Victim, images: Tensor) -> Tensor:
    """N×D; the parts of features that are trees of tensors are joined."""
    _seed()
    return torch.cat([leaf.flatten(1).float() for leaf in tree_leaves(victim.embed(images))], dim=1)


def _takes(victim: Victim, images: Tensor, dimensions: int) -> bool:
    """Whether its embeddings of images that are not of its own size are as long as those of others."""
    try:
        return _embeddings(victim, images).shape[1] == dimensions
    except Exception:
        return False


def _answers(victim: Victim, images: Tensor) -> list[list[int]]:
    """Steps of the logits, of the answers of a detector and of a comparison of its own, if there are any."""
    found, asked = [], [victim.logits] * victim.classifies + [victim.suspicion, victim.rejects]
    if victim.own_comparison:
        asked.append(lambda images: victim.compare(victim.embed(images), victim.embed(images.flip(-1))))
    for ask in asked:
        _seed()
        answer = ask(images)
        if answer is not None:
            values = answer[0].float().flatten()
            found.append(_projected(values, _scale(values)) + _steps(_scale(values).log2()))
    return found


def _images(height: int, width: int) -> Tensor:
    """2×3×H×W in [0, 1]: smooth colours and noise."""
    draws = np.random.RandomState(0)  # the same numbers in all versions of NumPy
    coarse = torch.from_numpy(draws.rand(2, 3, 8, 4)).float()
    smooth = functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    return (smooth + 0.2 * (torch.from_numpy(draws.rand(2, 3, height, width)).float() - 0.5)).clamp(0, 1)


def _projected(values: Tensor, unit: Tensor) -> list[int]:
    """Steps of the projections of D values, in multiples of `unit`."""
    directions = np.random.RandomState(0).standard_normal((DIRECTIONS, len(values))) / np.sqrt(len(values))
    return _steps(torch.from_numpy(directions) @ (values.double() / unit.double()))


def _steps(values: Tensor) -> list[int]:
    return [int(step) for step in (values.double() / STEP).round().flatten()]


def _scale(values: Tensor) -> Tensor:
    return values.square().mean().sqrt().clamp_min(1e-12)


def _differ(first: Tensor, second: Tensor) -> bool:
    return bool((first - second).abs().max() > _SAME * first.abs().max())


def _seed() -> None:
    torch.random.default_generator.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@contextlib.contextmanager
def _alone(victim: Victim) -> Iterator[None]:
    """Context on the CPU in one thread and in float32, after which random numbers go on as before."""
    tensors = [*victim.parameters(), *victim.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    threads, numpy_state, python_state = torch.get_num_threads(), np.random.get_state(), random.getstate()
    victim.eval()
    try:
        with torch.random.fork_rng(devices=[]), torch.autocast("cpu", enabled=False), torch.no_grad():
            torch.set_num_threads(1)
            if device.type != "cpu":
                victim.to("cpu")
            with as_it_was(victim):
                yield
    finally:
        torch.set_num_threads(threads)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        if device.type != "cpu":
            victim.to(device)
