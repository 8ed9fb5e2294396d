"""The embedding is selected in what a network returns: as asked for, or where there is no choice, and never guessed."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import pytest
import torch

from reid_attack_bench.contracts import embedding_in
from reid_attack_bench.contracts.selection import checked_pool
from reid_attack_bench.errors import BenchError, VictimError

ONE, OTHER = torch.arange(6.0).view(2, 3), torch.ones(2, 4)
MAPS = torch.arange(2.0 * 3 * 4 * 5).view(2, 3, 4, 5)
TOKENS = torch.arange(2.0 * 4 * 3).view(2, 4, 3)

Named = namedtuple("Named", ["logits", "feature"])


@pytest.mark.parametrize(
    "result", [ONE, ONE.view(2, 3, 1, 1), ONE.view(2, 1, 3), [ONE], (ONE,), {"x": ONE}, ONE.half()]
)
def test_where_there_is_no_choice_none_is_asked_for(result: Any) -> None:
    found = embedding_in(result, None, "Net")
    assert found.dtype == torch.float32
    assert torch.equal(found, ONE)


@pytest.mark.parametrize(
    ("result", "output"),
    [
        ([OTHER, ONE], 1),
        ({"logits": OTHER, "feature": ONE}, "feature"),
        (OrderedDict(logits=OTHER, feature=ONE), 1),
        ({1: OTHER, 0: ONE}, 0),  # its own keys come before positions
        (Named(OTHER, ONE), "feature"),
        (Named(OTHER, ONE), 1),
        (Named(OTHER, [ONE]), 1),
    ],
)
def test_an_output_is_selected_by_key_name_or_position(result: Any, output: Any) -> None:
    assert torch.equal(embedding_in(result, output, "Net"), ONE)


@pytest.mark.parametrize(
    ("values", "pool", "expected"),
    [
        (MAPS, "mean", MAPS.flatten(2).mean(2)),
        (MAPS, "max", MAPS.flatten(2).amax(2)),
        (MAPS, "flatten", MAPS.reshape(2, 60)),
        (TOKENS, "cls", TOKENS[:, 0]),
        (TOKENS, "mean", TOKENS.sum(1) / 4),
        (TOKENS, "max", TOKENS.amax(1)),
        (ONE, "mean", ONE),  # there is nothing to pool
    ],
)
def test_several_axes_are_pooled_as_asked_for(values: torch.Tensor, pool: Any, expected: torch.Tensor) -> None:
    assert torch.equal(embedding_in(values, None, "Net", pool=pool), expected)


@pytest.mark.parametrize(
    ("result", "settings", "says"),
    [
        ([OTHER, ONE], {}, r"Net returned several outputs \(0: 2×4, 1: 2×3\): select the embedding with output=…"),
        ({"a": OTHER, "b": None}, {"option": "feature"}, r"\('a': 2×4, 'b': NoneType\): select .* with feature=…"),
        ([OTHER, ONE], {"output": 2}, "returned several outputs"),
        (ONE, {"output": 0}, "returned one Tensor: leave out output=0"),
        (None, {}, "Net returned a NoneType, expected a tensor"),
        ((OTHER, "text"), {"output": 1}, "output 1 of Net returned a str, expected a tensor"),
        (torch.ones(2), {}, "Net gives shape 2, expected N×D"),
        (MAPS, {"pool": ""}, 'Net gives shape 2×3×4×5, more than one axis of values .* with pool="mean", "max"'),
        (
            torch.ones(2, 512, 7),
            {},
            "Net gives shape 2×512×7, .* one vector with a victim of your own",
        ),
        (MAPS, {"pool": "cls"}, 'gives shape 2×3×4×5: pool="cls" takes the first token'),
    ],
)
def test_what_leaves_a_choice_is_an_error_that_lists_it(result: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(VictimError, match=says):
        embedding_in(result, settings.pop("output", None), "Net", **settings)


def test_a_pool_that_is_none_is_refused() -> None:
    assert checked_pool("cls") == "cls"
    with pytest.raises(BenchError, match="pool must be mean, max, cls, flatten or empty, not 'gem'"):
        checked_pool("gem")
