"""Distances of any type of number are ranked as those of float32 are; what is no number is one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reid_attack_bench.contracts import distances
from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics.blocks import as_floats
from reid_attack_bench.metrics.ranking import distance_rows, rank, top_matches

LABELS = (np.arange(4) % 3, np.arange(6) % 3, np.zeros(4, int), np.ones(6, int))
WHOLE = torch.randperm(24, generator=torch.Generator().manual_seed(0)).reshape(4, 6)  # exact in every type
KINDS = [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int8, torch.int64, torch.uint8]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("in_blocks", [False, True])
def test_every_type_ranks_the_same(kind, in_blocks):
    expected = rank(WHOLE.float(), *LABELS)
    given = WHOLE.to(kind)
    blocks = [given[:1], given[1:]] if in_blocks else given
    assert np.array_equal(rank(blocks, *LABELS).ap, expected.ap)
    assert np.array_equal(top_matches(blocks, *LABELS, k=3), top_matches(WHOLE.float(), *LABELS, k=3))
    if kind != torch.bfloat16:  # NumPy has none
        assert np.array_equal(rank(given.numpy(), *LABELS).ap, expected.ap)


def test_distances_that_carry_gradients_are_ranked():
    assert np.array_equal(rank(WHOLE.float().requires_grad_(), *LABELS).ap, rank(WHOLE.float(), *LABELS).ap)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_embeddings_of_half_precision_are_compared_and_ranked(kind, distance):
    embeddings = torch.randn(10, 8, generator=torch.Generator().manual_seed(0)).to(kind)
    query, gallery = embeddings[:4], embeddings[4:]
    table = distances(query, gallery, distance)
    assert table.shape == (4, 6)
    assert torch.allclose(table.float(), distances(query.float(), gallery.float(), distance), rtol=0.1, atol=0.2)
    assert rank(distance_rows(query, gallery, distance), *LABELS).valid.all()


@pytest.mark.parametrize(
    "block", [torch.zeros(4, 6, dtype=torch.complex64), np.full((4, 6), "x"), np.zeros((4, 6), object)]
)
def test_what_is_no_real_number_is_refused(block):
    with pytest.raises(BenchError, match="distances must be real numbers"):
        rank(block, *LABELS)


def test_nothing_is_copied_that_need_not_be():
    block = torch.rand(4, 6)
    assert as_floats(block).ctypes.data == block.data_ptr()
