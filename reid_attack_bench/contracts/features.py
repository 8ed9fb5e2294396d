"""Features that are more than a vector per image, for victims with a comparison of their own.

Such a victim embeds to any tree of tensors (dict, tuple, list, nested), such as part embeddings and their visibility.
The harness and attacks see one float matrix N×D instead, so storing, chunking and averaging are those of embeddings;
`packed` makes it and undoes it where the victim compares.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from reid_attack_bench.contracts.victim import Victim, WrappedVictim
from reid_attack_bench.errors import VictimError

_PAIRED = 8  # rows compared at a time where only equal rows count


def packed(victim: Victim) -> Victim:
    """`victim` with N×D embeddings; itself if it has no comparison of its own, or is packed already."""
    return Packed(victim) if victim.own_comparison and not isinstance(victim, Packed) else victim


def paired(victim: Victim, first: Tensor, second: Tensor) -> Tensor:
    """Distances of equal rows of N×D and N×D, by the comparison of `victim`: N values."""
    parts = zip(first.split(_PAIRED), second.split(_PAIRED), strict=True)
    return torch.cat([victim.compare(one, other).diagonal() for one, other in parts])


@dataclass(frozen=True)
class Layout:
    """How the tensors of a tree stand side by side in the rows of a matrix.

    Attributes:
        tree: its structure.
        shapes: of each tensor, without the first axis.
        dtypes: of each tensor.
    """

    tree: pytree.TreeSpec
    shapes: tuple[torch.Size, ...]
    dtypes: tuple[torch.dtype, ...]

    @classmethod
    def of(cls, features: Any, count: int, name: str) -> tuple[Layout, list[Tensor]]:
        """The layout of features of `count` images by victim `name`, and their tensors.

        Raises:
            VictimError: something in the tree is no tensor, or has not one row for each image.
        """
        leaves, tree = pytree.tree_flatten(features)
        if not leaves:
            raise VictimError(f"victim {name}: embed returned no tensor but an empty {type(features).__name__}")
        for leaf in leaves:
            if not isinstance(leaf, Tensor) or leaf.ndim == 0 or len(leaf) != count or leaf.is_complex():
                got = f"{leaf.dtype} {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else f"a {type(leaf).__name__}"
                raise VictimError(
                    f"victim {name}: embed returned {got} in its features of {count} images: a tree of real tensors, "
                    "each with one row per image, is needed"
                )
        if not any(leaf.is_floating_point() for leaf in leaves):
            raise VictimError(f"victim {name}: no tensor of its features is of floating point values")
        return cls(tree, tuple(leaf.shape[1:] for leaf in leaves), tuple(leaf.dtype for leaf in leaves)), leaves

    def packed(self, leaves: Iterable[Tensor]) -> Tensor:
        """The tensors as one matrix, in the widest floating point type among them, float32 at least."""
        dtype = torch.float64 if torch.float64 in self.dtypes else torch.float32
        return torch.cat(
            [leaf.flatten(1).to(dtype) if leaf.ndim > 1 else leaf[:, None].to(dtype) for leaf in leaves], 1
        )

    def unpacked(self, matrix: Tensor) -> Any:
        """The tree of the rows of `matrix`. Truth values are those above one half, as in a mean over draws."""
        parts = matrix.split([shape.numel() for shape in self.shapes], dim=1)
        leaves = [
            _typed(part, dtype).reshape(len(matrix), *shape)
            for part, shape, dtype in zip(parts, self.shapes, self.dtypes, strict=True)
        ]
        return pytree.tree_unflatten(leaves, self.tree)

    def floating(self) -> Tensor:
        """Bool D: columns of the matrix that hold floating point values."""
        return torch.cat(
            [torch.full((shape.numel(),), dtype.is_floating_point)
             for shape, dtype in zip(self.shapes, self.dtypes, strict=True)]
        )  # fmt: skip


class Packed(WrappedVictim):
    """A victim whose features are one matrix outside; see the module. The layout is that of the first images."""

    def __init__(self, victim: Victim) -> None:
        super().__init__(victim)
        self.name, self.reranks = victim.name or type(victim).__name__, victim.reranks
        self._layout: Layout | None = None

    @property
    def layout(self) -> Layout:
        if self._layout is None:
            where = next((each.device for each in self.victim.state_dict().values()), torch.device("cpu"))
            with torch.no_grad():
                self.embed(torch.full((1, 3, *self.input_size), 0.5, device=where))
        assert self._layout is not None
        return self._layout

    def embed(self, images: Tensor) -> Tensor:
        return self._packed(self.victim.embed(images), len(images))

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        features, logits = self.victim.outputs(images)
        return self._packed(features, len(images)), logits

    def compare(self, query: Tensor, gallery: Tensor) -> Tensor:
        """Q×G distances of Q×D and G×D.

        Raises:
            VictimError: the victim returned another shape, or values that are not finite.
        """
        found = self.victim.compare(self.layout.unpacked(query), self.layout.unpacked(gallery))
        expected = (len(query), len(gallery))
        if not isinstance(found, Tensor) or found.shape != expected or not found.is_floating_point():
            got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise VictimError(
                f"victim {self.name}: compare returned {got} for {expected[0]} query and {expected[1]} gallery images, "
                f"expected a float tensor {expected[0]}×{expected[1]}"
            )
        if not torch.isfinite(found).all():
            raise VictimError(
                f"victim {self.name}: compare returned NaN or infinity: give pairs that cannot be compared a finite "
                "distance above all others"
            )
        return found

    def rerank(self, query: Tensor, gallery: Tensor) -> Tensor | Iterable[Tensor] | None:
        return self.victim.rerank(self.layout.unpacked(query), self.layout.unpacked(gallery))

    def suspicion_in_list(self, queries: Tensor, nearest: Tensor, distances: Tensor) -> Tensor:
        rows = pytree.tree_map(
            lambda leaf: leaf.unflatten(0, nearest.shape[:2]), self.layout.unpacked(nearest.flatten(0, 1))
        )
        return self.victim.suspicion_in_list(self.layout.unpacked(queries), rows, distances)

    def _packed(self, features: Any, count: int) -> Tensor:
        layout, leaves = Layout.of(features, count, self.name)
        if self._layout is None:
            self._layout = layout
        elif (layout.tree, layout.shapes) != (self._layout.tree, self._layout.shapes):
            raise VictimError(
                f"victim {self.name}: its features have other parts or sizes than those of images before: "
                f"{list(map(tuple, layout.shapes))} after {list(map(tuple, self._layout.shapes))}"
            )
        return layout.packed(leaves)


def _typed(values: Tensor, dtype: torch.dtype) -> Tensor:
    """`values` in the type of the victim's tensor; floating point ones stay, whatever the precision of the pass."""
    if dtype.is_floating_point:
        return values
    return values > 0.5 if dtype == torch.bool else values.round().to(dtype)
