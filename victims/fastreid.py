"""Networks that expect RGB from 0 to 255, such as those of FastReID (He et al., arXiv 2006.02631)."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from reid_attack_bench.contracts import Distance, Interpolation, State, Victim, embedding_in, preprocess
from reid_attack_bench.errors import BenchError

from .exported import Triple
from .prefixes import without_prefix
from .weights import built, load_weights, read_weights

_NOT_USED = re.compile(r"(heads|b\d+_head)\.(weight|classifier\.)|pixel_(mean|std)")
"""Names of weights that embeddings do not depend on: classifiers (of MGN one per branch), and the normalisation."""


def _current(state: State) -> State:
    """Names of September 2020, which its published weights have, as those of today."""
    old = re.compile(r"^((?:module\.)?\w+\.)bnneck\.(0\.)?")
    renamed = {old.sub(r"\1bottleneck.0.", name): value for name, value in state.items()}
    return renamed | {name: value for name, value in state.items() if not old.match(name)}


def fastreid_network(settings: Mapping[str, Any]) -> nn.Module:
    """A network of the package fastreid with random weights, on the CPU, in eval mode.

    Args:
        settings: changes to its default configuration, such as {"MODEL.BACKBONE.WITH_IBN": True}.

    Raises:
        BenchError: the package is not installed, or does not know a setting.
    """
    try:
        configs = importlib.import_module("fastreid.config")
        networks = importlib.import_module("fastreid.modeling.meta_arch")
    except ImportError as error:
        raise BenchError(
            f"networks of FastReID need its package, which does not import ({error}): pip install fastreid yacs "
            "termcolor tabulate, or put a clone of https://github.com/JDAI-CV/fast-reid on PYTHONPATH"
        ) from error
    config = configs.get_cfg()
    # nothing is downloaded: weights of the backbone come with the checkpoint
    values = {**settings, "MODEL.DEVICE": "cpu", "MODEL.BACKBONE.PRETRAIN": False}
    try:
        config.merge_from_list([part for pair in values.items() for part in pair])
        return built(lambda: networks.build_model(config))
    except (KeyError, ValueError, AssertionError) as error:
        raise BenchError(f"fastreid does not build the network of these settings: {error}") from error


class FastReidModel(Victim):
    """A network trained on RGB from 0 to 255, normalised with a mean and standard deviation of that range.

    FastReID's Baseline, which build_model(cfg) returns, normalises its input itself: `mean` and `std` are ignored for
    networks with an attribute pixel_mean.

    Args:
        module: the network; in eval mode it returns embeddings, N×D or N×D×1×1.
        file: its weights, see `weights.read_weights`; None if they are loaded already.
        mean, std: normalisation per channel, for images in [0, 255].
        input_size: (height, width) in pixels.
        distance: distance that ranks its embeddings.
        defence: short description of its defence.
        trained_on: name of its training data set, if the bench has it.
        output: position or dict key of the embedding, for a network with several outputs.
        trust_pickle, entry: see `weights.read_weights`.
        resize, antialias: see `contracts.preprocess`; FastReID's own evaluation is bicubic, with antialias.

    Raises:
        BenchError: the file is missing, corrupt, needs `trust_pickle`, or does not fit.
    """

    citation = "arXiv 2006.02631"

    # size: each parameter is an option in suite files
    def __init__(
        self,
        module: nn.Module,
        file: str | Path | None = None,
        *,
        mean: Triple = (123.675, 116.28, 103.53),
        std: Triple = (58.395, 57.12, 57.375),
        input_size: tuple[int, int] = (256, 128),
        distance: Distance = "cosine",
        defence: str = "",
        trained_on: str = "",
        output: int | str | None = None,
        trust_pickle: bool = False,
        entry: str = "",
        resize: Interpolation = "bilinear",
        antialias: bool = True,
    ) -> None:
        super().__init__()
        name = type(module).__name__
        if file is not None:
            state = without_prefix(read_weights(file, trust_pickle=trust_pickle, entry=entry))
            load_weights(module, _current(state), f"{file}, in {name},", ignore=lambda key: bool(_NOT_USED.match(key)))
        self.module = module.eval()
        self.name, self.input_size = name, (input_size[0], input_size[1])
        normalises = hasattr(module, "pixel_mean")
        self.mean = tuple(value / 255.0 for value in ((0.0, 0.0, 0.0) if normalises else mean))
        self.std = tuple(value / 255.0 for value in ((1.0, 1.0, 1.0) if normalises else std))
        self.distance, self.defence, self.trained_on, self.output = distance, defence, trained_on, output
        self.resize, self.antialias = resize, antialias

    def embed(self, images: Tensor) -> Tensor:
        ready = preprocess(
            images, self.input_size, self.mean, self.std, interpolation=self.resize, antialias=self.antialias
        )
        return embedding_in(self.module(ready), self.output, self.name)
