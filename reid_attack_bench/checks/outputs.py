"""Checks of outputs: declarations, shapes, eval mode, side effects, determinism, batches, logits, speed."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from reid_attack_bench.checks.subject import (
    BATCH,
    MOVED,
    Observation,
    Subject,
    fault,
    kind_of,
    note,
    ok,
    type_of,
)
from reid_attack_bench.contracts import Distance, weights_digest


def declarations(subject: Subject) -> Iterator[Observation]:
    size = subject.victim.input_size
    if subject.victim.distance not in get_args(Distance):
        yield fault(f"distance is {subject.victim.distance!r}", 'declare distance = "euclidean" or "cosine"')
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        yield fault(f"input_size is {size!r}", "declare (height, width) in pixels")
    elif size[0] < size[1]:
        yield note(
            f"input_size is {size[0]} high and {size[1]} wide",
            "pedestrian crops are usually taller than wide; expected (height, width)",
        )


def output(subject: Subject) -> Iterator[Observation]:
    """Check shape, type and finiteness for a batch, one image, and random images of the declared input size."""
    generator = torch.Generator().manual_seed(0)
    random = torch.rand(2, 3, *subject.victim.input_size, generator=generator).to(subject.images)
    result: Any = None
    for what, images in (("2 images", subject.few[:2]), ("1 image", subject.few[:1]), ("2 random images", random)):
        with torch.no_grad():
            result = subject.victim.embed(images.clone())
        if advice := misshapen(result, len(images)):
            yield fault(f"embed returned {kind_of(result)} for {what}", advice)
            return
        if not torch.isfinite(result).all():
            yield fault(
                f"embed returned NaN or infinity for {what}",
                "look for divisions by zero and roots of negative numbers; are its weights loaded?",
            )
            return
    _ = subject.embeddings  # raises for images that are not finite
    yield ok(f"N×{result.shape[1]}, {type_of(result)}, finite")


def misshapen(result: Any, count: int) -> str:
    """Advice if the result is not a float tensor N×D; empty otherwise."""
    if isinstance(result, (tuple, list, dict)):
        return f"return the embedding alone, N×D: select it from the {type(result).__name__}"
    if isinstance(result, np.ndarray):
        return "return a torch tensor: NumPy stops the gradient, use torch functions"
    if not isinstance(result, Tensor):
        return "return a torch tensor, N×D"
    if result.ndim > 2 and len(result) == count:
        return "return N×D: pool over height and width, or end with .flatten(1)"
    if result.ndim != 2 or len(result) != count:
        return "return one row for each image, N×D; squeeze() drops the batch of a single image"
    if not result.is_floating_point():
        return "return floating point values, from before rounding, hashing or argmax"
    return ""


def eval_mode(subject: Subject) -> Iterator[Observation]:
    subject.embed(subject.few[:2])
    training = [(name, module) for name, module in subject.model.named_modules() if module.training]
    hidden = [
        name
        for name, value in vars(subject.model).items()
        if not name.startswith("_") and isinstance(value, (list, tuple, dict))
        for part in (value.values() if isinstance(value, dict) else value)
        if isinstance(part, nn.Module)
    ]
    if hidden:
        yield fault(
            f"the modules in {hidden[0]} are in a plain list or dict: .eval() and .to(device) do not reach them",
            "use nn.ModuleList or nn.ModuleDict",
        )
    if training:
        kinds = sorted({type(module).__name__ for _, module in training})
        dropout = any("Dropout" in kind for kind in kinds)
        yield fault(
            f"{len(training)} modules are in training mode after .eval(): {', '.join(kinds[:4])}"
            f"{', so dropout is active' if dropout else ''} (first: {training[0][0] or 'the victim itself'})",
            "do not call .train() in embed, and let train(mode) reach every module",
        )
    if not hidden and not training:
        yield ok("every module is in eval mode, also after embed")


def side_effects(subject: Subject) -> Iterator[Observation]:
    images, before = subject.few.clone(), weights_digest(subject.victim)
    with torch.no_grad():
        subject.victim.embed(images)
    changes = not torch.equal(images, subject.few), weights_digest(subject.victim) != before
    if changes[0]:
        yield fault(
            "embed changes its input images",
            "replace in-place operations on them (sub_, div_, clamp_, +=), or start from images.clone()",
        )
    if changes[1]:
        yield fault(
            "embed changes the victim's own parameters or buffers",
            "keep no state between calls: results would depend on their order; is batch normalisation in eval mode?",
        )
    if not any(changes):
        yield ok("embed changes neither the images nor the victim")


def determinism(subject: Subject) -> Iterator[Observation]:
    seen = f"two passes over the same images differ by {100 * subject.varies:.2g} % of the distance between images"
    randomised = subject.victim.randomised
    if subject.varies > MOVED and not randomised:
        yield fault(seen, "declare randomised = True if the defence is random; else look for active dropout or noise")
    elif randomised and subject.varies <= MOVED:
        yield note(
            f"declared randomised = True, but {seen}",
            "remove the declaration, or draw new numbers in each pass: adaptive attacks average over the draws",
        )
    else:
        yield ok(f"{seen}{', as declared' if randomised else ''}")


def batch_independence(subject: Subject) -> Iterator[Observation]:
    if subject.varies > MOVED:
        yield note("not checked: two passes over one image already differ")
        return
    watched, others = subject.few[:3], subject.few[3:]
    noise = torch.rand(others.shape, generator=torch.Generator().manual_seed(0)).to(others)
    neighbours = {
        "other images": others,
        "black images": torch.zeros_like(noise),
        "white images": torch.ones_like(noise),
        "noise": noise,
    }
    alone = torch.cat([subject.embed(image[None]) for image in watched])
    moved = {}
    for what, batch in neighbours.items():
        first, last = subject.embed(torch.cat((watched, batch))), subject.embed(torch.cat((batch, watched)))
        moved[what] = max(subject.moved(first[:3], alone), subject.moved(last[-3:], alone))
    worst = max(moved, key=lambda what: moved[what])
    seen = f"an embedding moves by {100 * moved[worst]:.2g} % of the distance between images"
    if moved[worst] > MOVED:
        yield fault(
            f"{seen} when its image is in a batch with {worst} instead of alone",
            "use statistics of each image or of training, not of the batch: batch normalisation with running "
            "statistics, sums and norms over dim=1 and not dim=0",
        )
    else:
        yield ok(f"{seen} at most in a batch with {', '.join(moved)} instead of alone")


def speed(subject: Subject) -> Iterator[Observation]:
    images = subject.images[:BATCH]
    device = images.device
    seen = f"{len(images) / _seconds(lambda: subject.embed(images), device):.0f} images/s forward"
    if subject.victim.differentiable:
        leaf = images.clone().requires_grad_(True)

        def both() -> None:
            torch.autograd.grad(subject.victim.embed(leaf).sum(), leaf, allow_unused=True)

        with contextlib.suppress(RuntimeError):  # no gradient: reported by the gradient check
            seen += f", {len(images) / _seconds(both, device):.0f} forward and backward"
    where = f"{torch.get_num_threads()} CPU threads" if device.type == "cpu" else device.type
    yield ok(f"{seen}, on {where}, {len(images)} at a time")


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    wait = functools.partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return max(time.perf_counter() - start, 1e-9)
