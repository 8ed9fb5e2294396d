"""A victim on loan to an attack or a defence: it comes back as it was, and a step that changed it fails."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import torch
from torch import Tensor

from reid_attack_bench.contracts import Victim
from reid_attack_bench.errors import BenchError, VictimError
from reid_attack_bench.steps.condition import Change, Condition

_NAMED = 3  # things of one kind that a message names


@contextmanager
def on_loan(victim: Victim, borrower: str, name: str) -> Iterator[None]:
    """Context in which `borrower`, such as "attack pgd", has the victim `name`, which is afterwards as it was.

    What a victim changes of itself when it embeds is no fault of the borrower.

    Raises:
        BenchError: the borrower changed the victim.
        VictimError: the victim changes its own weights, buffers or modules when it embeds, or the images that it is
            given; also in place of an error of the borrower, which may have come of it.
    """
    before, error = Condition(victim), None
    try:
        yield
    except Exception as raised:
        error = raised
    finally:
        changes = before.changes()
        if changes:
            before.restore()
        before.drop_gradients()
    own: set[Change] = set()
    if changes or error is not None:
        own, writes = _own_changes(victim)
        if writes:
            raise VictimError(
                f"victim {name}: embed changes the images that it is given: replace in-place operations on them (sub_, "
                "div_, clamp_, +=), or start from images.clone()"
            ) from error
    if theirs := changes - own:
        raise BenchError(
            f"{borrower} changed {name}: {_listed(theirs)}; it must leave the model as it found it: work on "
            "copy.deepcopy. The change was undone"
        ) from error
    if serious := {change for change in changes if change.kind != "attributes"}:
        raise VictimError(
            f"victim {name}: embed changes the victim itself: {_listed(serious)}; keep no state between calls. Is "
            "batch normalisation in eval mode?"
        ) from error
    if error is not None:
        raise error


@contextmanager
def as_it_was(victim: Victim) -> Iterator[None]:
    """Context after which a victim is as it was: what it changes of itself reaches no other step."""
    before = Condition(victim)
    try:
        yield
    finally:
        if before.changes():
            before.restore()


def _own_changes(victim: Victim) -> tuple[set[Change], bool]:
    """What a victim that is asked about images changes of itself, and whether it changes the images."""

    def compared(images: Tensor) -> Tensor:
        return victim.compare(victim.embed(images), victim.embed(images.detach().flip(-1)))

    before, writes = Condition(victim), False
    asked = (victim.embed, victim.logits, victim.outputs, victim.suspicion, victim.rejects, victim.purify, compared)
    with _same_random_numbers(), as_it_was(victim):
        for images, gradients, ask in itertools.product(_unseen(victim), (False, True), asked):
            given = images.clone()
            with torch.set_grad_enabled(gradients), suppress(Exception):
                # no leaf, in which autograd allows no in-place operations
                ask(given.requires_grad_(True).view_as(given) if gradients else given)
            writes |= not torch.equal(given.detach(), images)
        changes = before.changes()
    return changes, writes


def _unseen(victim: Victim) -> list[Tensor]:
    """Images but those that `examine` shows, which a victim may remember; of two sizes, by which it may keep tables."""
    device = next((each.device for each in (*victim.parameters(), *victim.buffers())), torch.device("cpu"))
    generator = torch.Generator().manual_seed(7919)
    height, width = victim.input_size
    sizes = ((2, height, width), (3, 3 * height // 4, 3 * width // 4))
    return [torch.rand(count, 3, *size, generator=generator).to(device) for count, *size in sizes]


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    states = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])


def _listed(changes: Iterable[Change]) -> str:
    """For people: "weights (conv1.weight and 3 more), training mode (bn1)"."""
    names: dict[str, list[str]] = defaultdict(list)
    for change in sorted(changes):
        names[change.kind].append(_short(change.name))
    return ", ".join(f"{kind} ({_first(each)})" for kind, each in names.items())


def _first(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(name or "of the victim itself" for name in names[:_NAMED]) + more


def _short(name: str) -> str:
    """Without the wrappers that an attack sees around a victim."""
    while name.startswith("victim.") or name == "victim":
        name = name.removeprefix("victim").removeprefix(".")
    return name
