"""A torchreid model from a checkpoint file, whoever trained it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torch import Tensor

from reid_attack_bench.contracts import Distance, State
from reid_attack_bench.errors import BenchError

from .torchreid_zoo import TorchreidModel, untrained_model
from .weights import load_weights, read_weights, without_prefix


class TorchreidCheckpoint(TorchreidModel):
    """A torchreid architecture with the weights of a .pth, .pth.tar, .pt or .safetensors file.

    The number of identities is read off the checkpoint's classifier; without one the victim has no logits.

    Args:
        arch: a name of torchreid's factory, such as "osnet_x1_0".
        file: a state dict, bare or under state_dict or model; see weights.read_weights.
        input_size: (height, width) in pixels.
        distance: "euclidean" is torchreid's own default.
        defence: what defends it, in a few words.
        trained_on: name of the data set it was trained on, where that is one of the bench.
        trust_pickle: see weights.read_weights.

    Raises:
        BenchError: unknown architecture; the file is missing, corrupt, needs trust, or does not fit.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        arch: str,
        file: str | Path,
        input_size: tuple[int, int] = (256, 128),
        distance: Distance = "euclidean",
        defence: str = "",
        trained_on: str = "",
        trust_pickle: bool = False,
    ) -> None:
        state = without_prefix(read_weights(file, trust_pickle=trust_pickle))
        what = f"{file}, as {arch},"
        identities = _identities(state, what)
        model = untrained_model(arch, identities or 1)
        load_weights(model, state, what, ignore=lambda name: not identities and _of_classifier(name))
        super().__init__(model, arch, (input_size[0], input_size[1]), distance)
        self.classifies = bool(identities)
        self.defence = defence
        self.trained_on = trained_on

    def logits(self, images: Tensor) -> Tensor | None:
        return super().logits(images) if self.classifies else None

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return super().outputs(images) if self.classifies else (self.embed(images), None)


def _of_classifier(name: str) -> bool:
    return name.startswith("classifier")  # of every architecture in torchreid's factory, parts and all


def _identities(state: State, what: str) -> int:
    """How many identities the classifier was trained on; 0 for a checkpoint without one."""
    sizes = {len(value) for name, value in state.items() if _of_classifier(name) and value.ndim > 1}
    if len(sizes) > 1:
        raise BenchError(
            f"{what} has classifiers of {' and '.join(map(str, sorted(sizes)))} identities: which is meant?"
        )
    return sizes.pop() if sizes else 0
