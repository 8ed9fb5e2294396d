"""Checks of hidden state: answers that depend on what came before, and seeds that are set."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.checks.batches import OTHER_GRADIENT
from reid_attack_bench.checks.losses import after_a_start, gradient_of
from reid_attack_bench.checks.subject import MOVED, Observation, Subject, fault, ok, same_draw

RESPONSE = 0.1
"""Least response to small changes of an image, relative to that to large ones and to the size of the change."""

_SMALL, _LARGE = 6, 40  # changes to both sides, in 1/255; the large ones are further from the small ones than 32/255


def random_numbers(subject: Subject) -> Iterator[Observation]:
    """Check that embed draws from the global generators, if at all, and does not seed them."""
    (_, first), (one, second), (other, _) = (_from_seed(subject, seed) for seed in (1, 2, 2))
    seeded = [name for name, state in first.items() if state == second[name]]
    differ = subject.moved(one, other)
    if seeded:
        yield fault(
            f"embed sets the seed of {' and '.join(seeded)}",
            "draw from the global generator without seeding it, or from one of your own: attacks would draw the same "
            "numbers after each pass",
        )
    elif differ > MOVED:
        yield fault(
            f"two passes from the same seeds differ by {100 * differ:.2g} % of the distance between images",
            "draw from torch's global generator, or from those of NumPy and random: they are seeded for each step, and "
            "no other seed is; nobody can compute these figures again",
        )
    else:
        yield ok("embed does not seed the global generators" + _repeats(subject))


def _repeats(subject: Subject) -> str:
    return ", and its draws follow them" if subject.varies > MOVED else ""


def _from_seed(subject: Subject, seed: int) -> tuple[Tensor, dict[str, Any]]:
    """Embeddings of two images with all global generators seeded, and the states of these afterwards."""
    kept = random.getstate(), np.random.get_state()
    try:
        with same_draw(subject.images.device, seed), torch.no_grad():
            np.random.seed(seed)
            random.seed(seed)
            embeddings = subject.victim.embed(subject.few[:2].clone())
            return embeddings, _states(subject.images.device)
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])


def _states(device: torch.device) -> dict[str, Any]:
    states: dict[str, Any] = {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "NumPy": np.random.get_state(legacy=False)["state"]["key"].tobytes(),
        "random": random.getstate(),
    }
    if device.type == "cuda":
        states["torch.cuda"] = torch.cuda.get_rng_state(device).numpy().tobytes()
    return states


def hidden_state(subject: Subject) -> Iterator[Observation]:
    """Check that images are answered as at first, in any order, and that near images are not answered as one.

    It comes last, after the other checks have shown many images to the victim.
    """
    if subject.randomised:
        return
    images = subject.crafting
    moved = subject.moved(subject.embed(images.flip(0)).flip(0), subject.embeddings[: len(images)])
    if moved > MOVED:
        yield fault(
            f"after other images, an embedding moves by {100 * moved:.2g} % of the distance between images",
            "keep no state between calls: results would depend on their order",
        )
        return
    near, far = (_response(subject, images[:4], step) for step in (_SMALL, _LARGE))
    if near < RESPONSE * far or (far == 0.0 and not subject.collapsed):
        yield fault(
            f"two new images that differ by {2 * _SMALL}/255 are answered almost alike: embeddings move by "
            f"{100 * near / max(far, 1e-300):.2g} % of what a larger change suggests",
            "do not answer an image as one that was seen before",
        )
        return
    was = subject.first_gradient[0] if subject.first_gradient else None
    if was is not None:
        now = gradient_of(subject.victim, after_a_start(subject))
        change = 1.0 if now is None else float((now - was).double().norm() / was.double().norm().clamp_min(1e-300))
        if change > OTHER_GRADIENT:
            yield fault(
                f"the gradient of the same images changed by {100 * change:.2g} % between two checks",
                "keep no state between calls: attacks would meet other gradients than this check",
            )
            return
    yield ok("images are answered as at first, and near images each by itself")


def _response(subject: Subject, images: Tensor, step: int) -> float:
    """Movement of the embeddings of images not seen before, per 1/255, for a change in blocks of up to `step`/255."""
    new = 0.2 + 0.6 * (0.5 * images + 0.5 * images.roll(1, dims=0).flip(-1))
    coarse = torch.rand(len(new), 3, 8, 4, generator=torch.Generator().manual_seed(3)).sub(0.5).sign()
    change = functional.interpolate(coarse.to(new), new.shape[-2:], mode="nearest") * step / 255
    return float((subject.embed(new + change) - subject.embed(new - change)).norm(dim=1).mean()) / (2 * step)
