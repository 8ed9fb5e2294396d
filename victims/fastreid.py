"""Networks of FastReID (He et al., arXiv 2006.02631) and others that expect RGB from 0 to 255."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from reid_attack_bench.contracts import Distance, Victim, preprocess

from .exported import Triple, embeddings_in
from .weights import load_weights, read_weights

_CLASSIFIERS = ("heads.weight", "heads.classifier.", "pixel_mean", "pixel_std")  # no embedding needs them


class FastReidModel(Victim):
    """A network that was trained on RGB from 0 to 255 with a mean and standard deviation of that range.

    FastReID's own Baseline (what build_model(cfg) gives) normalises by itself, by its pixel_mean: it is given RGB from
    0 to 255, and `mean` and `std` are left alone.

    Args:
        module: the network; in eval mode it returns embeddings, N×D or N×D×1×1.
        file: its weights, see weights.read_weights; None where the module has them already.
        mean, std: for images in [0, 255].
        input_size: (height, width) in pixels.
        distance: what ranks its embeddings.
        defence: what defends it, in a few words.
        trained_on: name of the data set it was trained on, where that is one of the bench.
        output: which of several outputs is the embedding: a position, or the key of a dict.
        trust_pickle: see weights.read_weights.

    Raises:
        BenchError: the file is missing, corrupt, needs trust, or does not fit.
    """

    citation = "arXiv 2006.02631"

    def __init__(
        self,
        module: nn.Module,
        file: str | Path | None = None,
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
        by_itself = hasattr(module, "pixel_mean")
        self.mean = tuple(value / 255.0 for value in ((0.0, 0.0, 0.0) if by_itself else mean))
        self.std = tuple(value / 255.0 for value in ((1.0, 1.0, 1.0) if by_itself else std))
        self.distance, self.defence, self.trained_on, self.output = distance, defence, trained_on, output

    def embed(self, images: Tensor) -> Tensor:
        return embeddings_in(
            self.module(preprocess(images, self.input_size, self.mean, self.std)), self.output, self.name
        )
