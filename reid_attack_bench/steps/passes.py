"""Victims in lower precision, compiled, or in smaller batches when memory is short.

Each wraps another victim, so attacks and evaluation need no change.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from reid_attack_bench.adversary.cost import Metered
from reid_attack_bench.contracts import Victim, WrappedVictim
from reid_attack_bench.errors import BenchError

_Kept = TypeVar("_Kept")

Note = Callable[[str], None]


class MixedPrecision(WrappedVictim):
    """A victim under bfloat16 autocast; it returns float32."""

    def embed(self, images: Tensor) -> Tensor:
        with self._autocast(images):
            return self.victim.embed(images).float()

    def logits(self, images: Tensor) -> Tensor | None:
        with self._autocast(images):
            return _float(self.victim.logits(images))

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        with self._autocast(images):
            embeddings, logits = self.victim.outputs(images)
            return embeddings.float(), _float(logits)

    def suspicion(self, images: Tensor) -> Tensor | None:
        with self._autocast(images):
            return _float(self.victim.suspicion(images))

    def _autocast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(images.device.type, torch.bfloat16)


class Compiled(WrappedVictim):
    """A victim whose `embed` and `logits` are compiled by torch.compile."""

    def __init__(self, victim: Victim) -> None:
        super().__init__(victim)
        self._embed = torch.compile(victim.embed)
        self._logits = torch.compile(victim.logits)

    def embed(self, images: Tensor) -> Tensor:
        return self._embed(images)

    def logits(self, images: Tensor) -> Tensor | None:
        return self._logits(images)


def compiled(victim: Victim, name: str, device: torch.device, note: Note) -> Victim:
    """`victim` compiled; if torch.compile fails, `victim` itself, and the reason goes to `note` in one line."""
    if victim.uses_cameras:
        note(f"torch.compile is not used on {name}, which uses cameras; it runs as it is")
        return victim
    faster = Compiled(victim)
    probe = torch.rand(2, 3, *victim.input_size, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        # forward and backward, since each is compiled when it is first run
        with warnings.catch_warnings(), torch.random.fork_rng(), torch.enable_grad():
            warnings.simplefilter("ignore")
            for work in (faster.embed, faster.logits):
                values = work(probe.clone().requires_grad_(victim.differentiable))
                if values is not None and values.requires_grad:
                    values.sum().backward()
            with torch.inference_mode():
                faster.embed(probe)
    except Exception as error:  # a compiler may raise anything; errors of the victim itself occur without it too
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:200]
        note(f"torch.compile does not work on {name} ({type(error).__name__}: {reason}); it runs as it is")
        return victim
    return faster


class Chunked(WrappedVictim):
    """A victim that splits its batches into chunks of `max_batch` images, for a GPU with too little memory.

    With gradients, activations are recomputed in the backward pass instead of stored (Chen et al., arXiv 1604.06174),
    in the time of one forward pass, which is no cost of the attack. One that splits its batches by `max_batch` itself
    saves that time. Unless it `recomputes`, activations of the whole batch are stored.
    """

    def __init__(self, victim: Victim, max_batch: int, *, recomputes: bool = True) -> None:
        super().__init__(victim)
        self.max_batch = self._size = max_batch
        self._recomputes = recomputes
        self._costs = [part.cost for part in victim.modules() if isinstance(part, Metered)]

    def embed(self, images: Tensor) -> Tensor:
        return self._joined(self.victim.embed, images)

    def logits(self, images: Tensor) -> Tensor | None:
        return self._joined(self.victim.logits, images)

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self._joined(self.victim.outputs, images)

    def suspicion(self, images: Tensor) -> Tensor | None:
        return self._joined(self.victim.suspicion, images)

    def rejects(self, images: Tensor) -> Tensor | None:
        return self._joined(self.victim.rejects, images)

    def _joined(self, function: Callable[[Tensor], Any], images: Tensor) -> Any:
        if len(images) <= self._size:
            return function(images)
        if self._recomputes and torch.is_grad_enabled() and images.requires_grad:
            function = functools.partial(checkpoint, function, use_reentrant=False, context_fn=self._contexts)
        parts = [function(part) for part in images.split(self._size)]
        if isinstance(parts[0], tuple):
            return tuple(_together(values) for values in zip(*parts, strict=True))
        return _together(parts)

    def _contexts(self) -> tuple[contextlib.AbstractContextManager[Any], contextlib.AbstractContextManager[Any]]:
        """Those of the pass, and of the same pass in the backward pass."""
        return contextlib.nullcontext(), self._recomputing()

    @contextlib.contextmanager
    def _recomputing(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for cost in self._costs:
                stack.enter_context(cost.recomputing())
            yield


def with_smaller_batches(work: Callable[[int], _Kept], size: int, what: str, note: Note) -> tuple[_Kept, int]:
    """Call `work(size)`, halving the size whenever it runs out of GPU memory.

    Returns:
        The result, and the size that fitted.

    Raises:
        BenchError: not even one image fits.
    """
    while True:
        with contextlib.suppress(torch.cuda.OutOfMemoryError):
            return work(size), size
        if torch.cuda.is_available():
            gc.collect()  # frees the tensors of the failed attempt
            torch.cuda.empty_cache()
        if size == 1:
            raise BenchError(
                f"{what}: a single image does not fit into the GPU's memory: free some, lower image_size, or use "
                "--device cpu"
            )
        size //= 2
        note(f"{what}: out of GPU memory, going on with {size} image{'s' * (size > 1)} at once")


def _together(parts: Any) -> Tensor | None:
    return None if parts[0] is None else torch.cat(list(parts))


def _float(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.float()


def inference(seen: set[torch.Size], images: Tensor) -> contextlib.AbstractContextManager[Any]:
    """torch.inference_mode, but no_grad for the first images of each shape, which are added to `seen`.

    Tensors that a victim creates once and caches, such as position tables, must not be inference tensors: they could
    not take part in a backward pass later.
    """
    if images.shape in seen:
        return torch.inference_mode()
    seen.add(images.shape)
    return torch.no_grad()
