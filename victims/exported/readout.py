"""The embedding in the output of a network: selected, pooled, and L2-normalised as a whole or part by part."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_attack_bench.contracts import Pool, embedding_in, output_in
from reid_attack_bench.contracts.selection import shape_of
from reid_attack_bench.errors import BenchError, VictimError

Normalise = Literal["none", "whole", "parts"]


class Readout(nn.Module):
    """N×… output of a network → N×D embeddings.

    Args:
        output: position or key of the embedding, for a network with several outputs.
        pool: how an output with more than one axis of values becomes a vector, see `contracts.embedding_in`.
        normalise: "whole" to L2-normalise the embedding; "parts" to L2-normalise each of its parts, then join them.
        parts_axis: axis of the output along which the parts lie: 2 for N×D×P, 1 for N×P×D.

    Raises:
        BenchError: settings that contradict each other.
    """

    def __init__(
        self, output: int | str | None, pool: Pool = "", normalise: Normalise = "none", parts_axis: int | None = None
    ) -> None:
        super().__init__()
        if (normalise == "parts") is (parts_axis is None):
            raise BenchError(
                "normalise=parts and parts_axis belong together: parts_axis=2 for an output N×D×P, 1 for N×P×D; "
                f"got normalise={normalise} and parts_axis={parts_axis}"
            )
        if normalise == "parts" and pool:
            raise BenchError(f"normalise=parts joins the parts, so pool={pool} has nothing to pool: leave one out")
        self.output, self.pool, self.normalise, self.parts_axis = output, pool, normalise, parts_axis

    def selected(self, result: Any, what: str) -> Tensor:
        """The output that is the embedding, float32, before normalisation; N×D, or N×… with an axis of parts.

        Raises:
            VictimError: no such output, or its axes leave a choice that no setting makes.
        """
        name, values = output_in(result, self.output, what)
        if self.parts_axis is not None:
            if not 0 < self.parts_axis < values.ndim or values.ndim < 3:
                raise VictimError(f"{name} has shape {shape_of(values)}: it has no axis of parts {self.parts_axis}")
            return values.float()
        if not self.pool and sum(side != 1 for side in values.shape[1:]) > 1:
            last, parts = values.ndim - 1, values.shape[-1]
            raise VictimError(
                f"{name} has shape {shape_of(values)}, more than one axis of values for each image: set "
                f"normalise=parts with parts_axis={last} for {parts} parts that are L2-normalised each, or pool=mean, "
                "max, cls (the first token) or flatten"
            )
        return embedding_in(values, None, name, pool=self.pool)

    def forward(self, values: Tensor) -> Tensor:
        if self.parts_axis is not None:
            others = tuple(axis for axis in range(1, values.ndim) if axis != self.parts_axis)
            lengths = torch.linalg.vector_norm(values, dim=others, keepdim=True).clamp_min(1e-12)
            return (values / lengths).flatten(1)
        return functional.normalize(values) if self.normalise == "whole" else values
