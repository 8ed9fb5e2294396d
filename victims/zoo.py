"""Published models by name; the zoo's files list them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from reid_attack_bench.contracts import PublishedValues, Victim, WrappedVictim
from reid_attack_bench.errors import BenchError, MissingWeightsError
from reid_attack_bench.zoo.catalogue import IMAGENET_MEAN, IMAGENET_STD, ZooEntry, find
from reid_attack_bench.zoo.folder import find_file, weights_folder

from .checkpoint import TorchreidCheckpoint
from .fastreid import FastReidModel, fastreid_network


class ZooModel(WrappedVictim):
    """A published model by its name in the zoo; its file comes from `reid-attack-bench weights get`.

    `trained_on` is left empty for models of several data sets or of all images of one.

    Args:
        name: its name, see `reid-attack-bench weights list`.
        zoo_file: your own zoo file, whose names win.

    Raises:
        MissingWeightsError: its file is not in the weights folder.
        BenchError: unknown name; the file is corrupt or does not fit; its package is not installed.
    """

    version: ClassVar[int] = 1

    def __init__(self, name: str, *, zoo_file: str | Path | None = None) -> None:
        entry = find(name, zoo_file)
        path = find_file(entry)
        if entry.builder == "metric-backbone":
            raise BenchError(f"{name} is the network of a measure, not a ReID model: choose another name")
        if path is None:
            raise MissingWeightsError((name,), str(weights_folder()), str(zoo_file) if entry.zoo_file else "")
        super().__init__(_torchreid(entry, path) if entry.builder == "torchreid" else _fastreid(entry, path))
        self.name = name
        self.citation = entry.citation
        self.trained_on = entry.trained_on[0] if len(entry.trained_on) == 1 and not entry.all_images else ""
        self.training_data = entry.trained_on
        self.architecture = entry.architecture
        self.published = {each.tested_on: PublishedValues(each.rank1, each.mAP) for each in entry.figures}
        self.key_settings = _deciding(entry)

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.victim.outputs(images)


def _torchreid(entry: ZooEntry, path: Path) -> Victim:
    victim = TorchreidCheckpoint(entry.architecture, path, input_size=entry.input, distance=entry.distance)
    victim.mean, victim.std = entry.mean, entry.std
    return victim


def _fastreid(entry: ZooEntry, path: Path) -> Victim:
    if (entry.mean, entry.std) != (IMAGENET_MEAN, IMAGENET_STD):
        raise BenchError(
            f"{entry.name}: networks of FastReID normalise images themselves: give MODEL.PIXEL_MEAN and "
            "MODEL.PIXEL_STD in settings instead of mean and std"
        )
    network = fastreid_network(entry.settings)
    return FastReidModel(network, path, input_size=entry.input, distance=entry.distance)


def _deciding(entry: ZooEntry) -> dict[str, Any]:
    """What decides its embeddings beside its weights. Figures, addresses and notes may change."""
    settings: dict[str, Any] = {
        "builder": entry.builder,
        "architecture": entry.architecture,
        "input": list(entry.input),
        "distance": entry.distance,
    }
    others = {"mean": (entry.mean, IMAGENET_MEAN), "std": (entry.std, IMAGENET_STD), "settings": (entry.settings, {})}
    return settings | {name: value for name, (value, default) in others.items() if value != default}
