"""Is a victim what the bench takes it for? Checked on a few clean images before any attack is spent on it.

A fault breaks the contract of `contracts.Victim`, or makes every figure of the victim suspect; a note is for the user
to judge. Where two ways to feed or to rank a victim are compared, it is by the AP of the same queries.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from reid_attack_bench.contracts import Victim, to_float
from reid_attack_bench.errors import BenchError, VictimError
from reid_attack_bench.jobs.check_victim.defences import purify, rejects
from reid_attack_bench.jobs.check_victim.gradients import gradient
from reid_attack_bench.jobs.check_victim.inputs import distance, other_input, ranking
from reid_attack_bench.jobs.check_victim.outputs import (
    batch_independence,
    declarations,
    determinism,
    eval_mode,
    logits,
    output,
    side_effects,
    speed,
)
from reid_attack_bench.jobs.check_victim.subject import CheckResult, Said, Subject


def check(
    victim: Victim,
    images: np.ndarray,
    identities: np.ndarray,
    cameras: np.ndarray,
    *,
    device: torch.device | str = "cpu",
) -> list[CheckResult]:
    """Hold `victim` against its contract, and against what usually goes wrong.

    The victim is put on `device`, in eval mode and frozen, as the bench does. Every image is a query to all others;
    as always, those of its identity in its camera are junk.

    Args:
        images: uint8 RGB N×H×W×3, clean; a few dozen identities with two or more images each tell enough.
        identities, cameras: int N.

    Returns:
        What each check found, in order. Where embed does not give embeddings, nothing else is checked.

    Raises:
        BenchError: no identity is seen by two cameras, so that nothing can be ranked.
    """
    victim.to(device).eval().requires_grad_(False)
    subject = Subject(victim, to_float(images, device), np.asarray(identities), np.asarray(cameras))
    findings: list[CheckResult] = []
    for name, function in _CHECKS.items():
        findings += _attempt(name, function, subject)
        if findings[-1:] and findings[-1].name == "output" and findings[-1].level == "fault":
            break
    return findings


def _attempt(name: str, function: Callable[[Subject], Iterable[Said]], subject: Subject) -> Iterator[CheckResult]:
    """What a check finds, or that the victim fails in it."""
    try:
        for level, evidence, advice in function(subject):
            yield CheckResult(name, level, evidence, advice)
    except VictimError as error:
        yield CheckResult(name, "fault", str(error), "it must do so for every batch of clean images")
    except BenchError:
        raise
    except Exception as error:  # whatever the user's code does wrong is a finding
        reason = " ".join(str(error).split())[:300]
        yield CheckResult(name, "fault", f"it fails with {type(error).__name__}: {reason}", "repair it and check again")


_CHECKS: dict[str, Callable[[Subject], Iterable[Said]]] = {
    "declarations": declarations,
    "output": output,
    "eval mode": eval_mode,
    "side effects": side_effects,
    "determinism": determinism,
    "batch independence": batch_independence,
    "gradient": gradient,
    "logits": logits,
    "purify": purify,
    "rejects": rejects,
    "ranking": ranking,
    **{name: functools.partial(other_input, name) for name in ("value range", "normalisation", "colour order")},
    "distance": distance,
    "speed": speed,
}
