"""Check a victim against its contract on a few clean images.

A fault violates the contract of `contracts.Victim` or makes all results of the victim doubtful; a note is a hint for
the user. Inputs and distances are compared by the AP of the same queries.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from reid_attack_bench.checks.batches import batch_size
from reid_attack_bench.checks.cameras import cameras as camera_check
from reid_attack_bench.checks.comparison import comparison
from reid_attack_bench.checks.defences import purify, rejects
from reid_attack_bench.checks.gradients import adaptive_gradient, gradient
from reid_attack_bench.checks.inputs import distance, other_input, ranking
from reid_attack_bench.checks.logits import logits
from reid_attack_bench.checks.outputs import (
    batch_independence,
    declarations,
    determinism,
    eval_mode,
    output,
    side_effects,
    speed,
)
from reid_attack_bench.checks.reranking import reranking
from reid_attack_bench.checks.result import CheckResult
from reid_attack_bench.checks.saturation import saturation
from reid_attack_bench.checks.state import hidden_state, random_numbers
from reid_attack_bench.checks.subject import BATCH, Observation, Subject
from reid_attack_bench.contracts import Victim, bound, cameras_of, to_float
from reid_attack_bench.data.split import Split
from reid_attack_bench.errors import BenchError, VictimError


# size: the images, and how they are checked
def check(
    victim: Victim,
    images: np.ndarray,
    identities: np.ndarray,
    cameras: np.ndarray,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = BATCH,
    timed: bool = True,
    called: Callable[[int], str] = "image {}".format,
) -> list[CheckResult]:
    """Check `victim` against its contract and for common mistakes.

    The victim is moved to `device`, put in eval mode and frozen, as in a run. Every image is a query to all others;
    images with its identity and camera are junk, as in every ranking.

    Args:
        images: clean images, uint8 RGB N×H×W×3; a few dozen identities with at least two images each are enough.
            If they know their cameras, see `contracts.with_cameras`, a victim that uses cameras is told those.
        identities, cameras: int N.
        batch_size: images per batch when attacks are crafted; gradients are checked at this size.
        called: position of an image → its name, for messages.
        timed: include the check "speed", whose result differs from run to run.

    Returns:
        Results of the checks, in order. If embed does not return embeddings, nothing else is checked.

    Raises:
        VictimError: it declares `uses_cameras`, but does not take them.
        BenchError: no identity is seen by two cameras, so images cannot be ranked.
    """
    victim = bound(victim).to(device).eval().requires_grad_(False)
    split = Split(images, np.asarray(identities), np.asarray(cameras))
    shown = images if cameras_of(images) is not None else split.images_for(victim)
    subject = Subject(victim, to_float(shown, device), split.identities, split.cameras, batch_size, called)
    results: list[CheckResult] = []
    for name, function in _CHECKS.items():
        if name == "speed" and not timed:
            continue
        results += _attempt(name, function, subject)
        if results[-1:] and results[-1].name == "output" and results[-1].level == "fault":
            break
    return results


def _attempt(
    name: str, function: Callable[[Subject], Iterable[Observation]], subject: Subject
) -> Iterator[CheckResult]:
    """Results of one check; an exception raised by the victim is a fault."""
    try:
        for level, evidence, advice in function(subject):
            yield CheckResult(name, level, evidence, advice)
    except VictimError as error:
        yield CheckResult(name, "fault", str(error), "embed must work for every batch of clean images")
    except (BenchError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # the user's code may raise anything
        reason = " ".join(str(error).split())[:300]
        yield CheckResult(name, "fault", f"raises {type(error).__name__}: {reason}", "fix it and check again")


_CHECKS: dict[str, Callable[[Subject], Iterable[Observation]]] = {
    "declarations": declarations,
    "output": output,
    "eval mode": eval_mode,
    "side effects": side_effects,
    "determinism": determinism,
    "random numbers": random_numbers,
    "batch independence": batch_independence,
    "batch size": batch_size,
    "gradient": gradient,
    "adaptive gradient": adaptive_gradient,
    "saturation": saturation,
    "logits": logits,
    "purify": purify,
    "rejects": rejects,
    "ranking": ranking,
    **{name: functools.partial(other_input, name) for name in ("value range", "normalisation", "colour order")},
    "distance": distance,
    "comparison": comparison,
    "re-ranking": reranking,
    "cameras": camera_check,
    "hidden state": hidden_state,
    "speed": speed,
}
