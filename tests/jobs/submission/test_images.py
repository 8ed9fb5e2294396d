"""When images that are crafted again count as those of a submission: the same, or as strong on the source."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reid_attack_bench.contracts import Victim, bound, to_float, to_uint8
from reid_attack_bench.jobs.submission import images
from tests.plugins.toy import ToyVictim

CLEAN = np.random.default_rng(0).integers(30, 225, (10, 64, 32, 3)).astype(np.uint8)


def attacked(victim: Victim, seed: int, steps: int = 10, epsilon: int = 8) -> np.ndarray:
    """PGD from a random start: another seed is as strong, and has other values."""
    draws = torch.Generator().manual_seed(seed)
    clean = to_float(CLEAN, torch.device("cpu"))
    before = victim.embed(clean).detach()
    change = (torch.rand(clean.shape, generator=draws) * 2 - 1) * epsilon / 255
    for _ in range(steps):
        change.requires_grad_(True)
        apart = victim.compare(victim.embed(clean + change), before).diagonal().sum()
        (gradient,) = torch.autograd.grad(apart, change)
        change = (change.detach() + 2 / 255 * gradient.sign()).clamp(-epsilon / 255, epsilon / 255)
    return to_uint8(clean + change.detach())


@pytest.fixture(scope="module")
def victim() -> Victim:
    return bound(ToyVictim().eval().requires_grad_(False))


def held(victim: Victim | None, found: np.ndarray, given: np.ndarray) -> bool:
    alike = images._Alike({"query": CLEAN}, [victim] if victim else [], torch.device("cpu"))
    return images._hold(*alike.compared({"query": found}, {"query": given}))


def test_the_same_images_hold_and_as_strong_ones_too(victim: Victim) -> None:
    one, other = attacked(victim, 1), attacked(victim, 2)
    assert (one == other)[one != CLEAN].mean() < images.EQUAL, "they differ"
    assert held(victim, one, one)
    assert held(victim, one, other)
    assert held(None, one, one)
    assert not held(None, one, other), "without a source nothing says that they are as strong"


@pytest.mark.parametrize("kind", ["clean", "noise", "smaller", "few clean", "of another source"])
def test_weaker_images_do_not(victim: Victim, kind: str) -> None:
    found = attacked(victim, 1)
    noise = np.random.default_rng(1).integers(-8, 9, CLEAN.shape)
    given = {
        "clean": CLEAN,
        "noise": np.clip(CLEAN + noise, 0, 255).astype(np.uint8),
        "smaller": attacked(victim, 2, epsilon=5),
        "few clean": np.concatenate([found[:8], CLEAN[8:]]),
        "of another source": attacked(bound(ToyVictim(seed=5).eval()), 1),
    }[kind]
    assert not held(victim, found, given)
