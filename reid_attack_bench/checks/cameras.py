"""Check of a victim that uses cameras: how much a wrong camera, or none, moves an embedding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from reid_attack_bench.checks.subject import Observation, Subject, note, ok
from reid_attack_bench.contracts import cameras_of, with_cameras, without_cameras

IGNORED = 1e-4
"""Largest change, relative to the distance between images, by which a victim ignores cameras."""


def cameras(subject: Subject) -> Iterator[Observation]:
    """Embed the same images with the next of the cameras in the data in place of their own, and with none."""
    if not subject.victim.uses_cameras or subject.varies > IGNORED:
        return
    told = cameras_of(subject.few)
    if told is None or (told < 0).all():
        yield note("not checked: it does not know the cameras of these images")
        return
    images, known = subject.few, subject.cameras[: len(subject.few)]
    every = np.unique(subject.cameras)
    wrong = every[(np.searchsorted(every, known) + 1) % len(every)]
    right = _embedded(subject, images, known)
    by_wrong = subject.moved(_embedded(subject, images, wrong), right)
    by_none = subject.moved(_embedded(subject, images, np.full(len(known), -1)), right)
    seen = f"{100 * by_wrong:.2g} % of the distance between images"
    if max(by_wrong, by_none) <= IGNORED and len(every) > 1:
        yield note(
            "it declares uses_cameras, but an embedding is the same for every camera",
            "are the weights of its camera embeddings loaded? Or remove the declaration",
        )
    else:
        yield ok(f"a wrong camera moves an embedding by up to {seen}, an unknown one by up to {100 * by_none:.2g} %")


def _embedded(subject: Subject, images: Tensor, cameras: np.ndarray) -> Tensor:
    return subject.embed(with_cameras(without_cameras(images), cameras))
