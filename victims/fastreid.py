"""Networks that expect RGB from 0 to 255, such as those of FastReID (He et al., arXiv 2006.02631)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from reid_attack_bench.contracts import Distance, Victim, preprocess

from .exported import Triple, embeddings_in
from .weights import load_weights, read_weights

_CLASSIFIERS = ("heads.weight", "heads.classifier.", "pixel_mean", "pixel_std")  # not used for embeddings


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
        trust_pickle: see `weights.read_weights`.

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
    ) -> None:
        super().__init__()
        name = type(module).__name__
        if file is not None:
            state = read_weights(file, trust_pickle=trust_pickle)
            load_weights(module, state, f"{file}, in {name},", ignore=lambda key: key.startswith(_CLASSIFIERS))
        self.module = module.eval()
        self.name, self.input_size = name, (input_size[0], input_size[1])
        normalises = hasattr(module, "pixel_mean")
        self.mean = tuple(value / 255.0 for value in ((0.0, 0.0, 0.0) if normalises else mean))
        self.std = tuple(value / 255.0 for value in ((1.0, 1.0, 1.0) if normalises else std))
        self.distance, self.defence, self.trained_on, self.output = distance, defence, trained_on, output

    def embed(self, images: Tensor) -> Tensor:
        return embeddings_in(
            self.module(preprocess(images, self.input_size, self.mean, self.std)), self.output, self.name
        )
