"""Torchreid models from checkpoint files."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from reid_attack_bench.contracts import Distance, State
from reid_attack_bench.errors import BenchError

from .prefixes import without_prefix
from .torchreid_zoo import TorchreidModel, untrained_model
from .weights import built, load_weights, read_weights


class TorchreidCheckpoint(TorchreidModel):
    """A torchreid architecture with the weights of a .pth, .pth.tar, .pt or .safetensors file.

    The number of identities is that of the classifier in the checkpoint; without a classifier, or with one of a single
    class, the victim has no logits.

    Args:
        arch: a name of torchreid's factory, such as "osnet_x1_0".
        file: a checkpoint, see `weights.read_weights`.
        input_size: (height, width) in pixels.
        distance: distance that ranks its embeddings; "euclidean" is the default of torchreid.
        defence: short description of its defence.
        trained_on: name of its training data set, if the bench has it.
        trust_pickle, entry: see `weights.read_weights`.

    Raises:
        BenchError: unknown architecture; the file is missing, corrupt, needs `trust_pickle`, or does not fit.
    """

    version: ClassVar[int] = 1

    # size: each parameter is an option in suite files
    def __init__(
        self,
        arch: str,
        file: str | Path,
        *,
        input_size: tuple[int, int] = (256, 128),
        distance: Distance = "euclidean",
        defence: str = "",
        trained_on: str = "",
        trust_pickle: bool = False,
        entry: str = "",
    ) -> None:
        what = f"{file}, as {arch},"
        state = read_weights(file, trust_pickle=trust_pickle, entry=entry)
        with torch.device("meta"):
            names = untrained_model(arch, 1).state_dict().keys()
        state = without_prefix(state, names, what)
        identities = _identities(state, what)
        model = built(lambda: untrained_model(arch, identities or 1))
        load_weights(model, state, what, ignore=lambda name: _of_classifier(name) and not identities)
        super().__init__(model, arch, (input_size[0], input_size[1]), distance)
        self.classifies = identities > 1  # the class of an image cannot change where there is one
        self.defence = defence
        self.trained_on = trained_on

    def logits(self, images: Tensor) -> Tensor | None:
        return super().logits(images) if self.classifies else None

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return super().outputs(images) if self.classifies else (self.embed(images), None)


def _of_classifier(name: str) -> bool:
    return name.startswith("classifier")  # in every architecture of torchreid, also those with several classifiers


def _identities(state: State, what: str) -> int:
    """Number of classes of the classifier; 0 if the checkpoint has none."""
    sizes = {len(value) for name, value in state.items() if _of_classifier(name) and value.ndim > 1}
    without = [name for name in state if _of_classifier(name)] if not sizes else []
    if without:
        raise BenchError(f"{what} has {without[0]}, but no weights of a classifier: it is of another architecture")
    if len(sizes) > 1:
        raise BenchError(
            f"{what} has classifiers of {' and '.join(map(str, sorted(sizes)))} identities: expected one number"
        )
    return sizes.pop() if sizes else 0
